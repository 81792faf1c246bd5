"""References, bipolar pairs, and what to do where a wanted channel is missing."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from eegkd.data.recordings.layouts import scheme_hint
from eegkd.data.recordings.names import canonical_name, is_electrode, split_pair
from eegkd.data.recordings.recording import Kind, Recording, Unit
from eegkd.errors import InputError

Montage = Literal["referential", "average", "double_banana"]
Policy = Literal["error", "interpolate", "mask"]

DOUBLE_BANANA = (
    *("Fp1-F7", "F7-T7", "T7-P7", "P7-O1", "Fp2-F8", "F8-T8", "T8-P8", "P8-O2"),
    *("Fp1-F3", "F3-C3", "C3-P3", "P3-O1", "Fp2-F4", "F4-C4", "C4-P4", "P4-O2"),
    *("Fz-Cz", "Cz-Pz"),
)
"""The longitudinal pairs; the first 16 are in the order of CBraMod and BIOT."""

EARS = frozenset(("A1", "A2", "M1", "M2"))
_FLAT_RANGE = 1e-3
_MIN_SPLINE_ELECTRODES = 4
_SHOWN = 32


class _Row(NamedTuple):
    signal: np.ndarray
    kind: Kind
    unit: Unit


def default_channels(recording: Recording) -> tuple[str, ...]:
    """Returns the EEG channels of a recording, or its ECG leads where it has none.

    Channels that are marked as bad are left out.

    Raises:
        InputError: If there is none, or all are marked as bad.
    """
    for wanted in ("eeg", "ecg"):
        names = zip(recording.channels, recording.kinds, strict=True)
        found = tuple(name for name, kind in names if kind == wanted)
        good = tuple(name for name in found if name not in recording.bad_channels)
        if found and not good:
            raise InputError(
                f"{recording.source}: all {len(found)} {wanted.upper()} channels are "
                f"marked as bad{_said(recording)}. Leave the file out, or correct its "
                "marks."
            )
        if good:
            return good
    raise InputError(
        f"{recording.source}: no EEG or ECG channel among "
        f"{', '.join(recording.channels)}. Name the channels with --data.channels."
    )


def _said(recording: Recording) -> str:
    return f" ({'; '.join(recording.notes)})" if recording.notes else ""


def pick_channels(
    recording: Recording, channels: Sequence[str], policy: Policy = "error"
) -> tuple[Recording, Bool[np.ndarray, " c"]]:
    """Returns a recording of exactly these channels, in this order.

    A pair "F3-C3" that was not recorded as such is the difference of its electrodes.
    A flat channel (it varies by less than a thousandth of its unit) counts as missing,
    and so does one that is marked as bad.

    Args:
        recording: Recording that holds them, names in any spelling.
        channels: Electrodes, pairs or leads, in any spelling ("T3" is "T7").
        policy: Where one is missing: `error` stops, `interpolate` fills it from the
            other electrodes by spherical splines, `mask` fills it with zeros.

    Returns:
        The recording, with the missing channels in `filled`, and which of its channels
        hold a signal: False where masked.

    Raises:
        InputError: If a channel is missing under `error`, cannot be interpolated, or
            is wanted twice; if all would be masked.
    """
    wanted = tuple(map(canonical_name, channels))
    twice = [name for i, name in enumerate(wanted) if name in wanted[:i]]
    if twice:
        raise InputError(f"--data.channels names {twice[0]} twice; name it once.")
    if policy not in ("error", "interpolate", "mask"):
        raise InputError(
            f"--data.policy {policy} is unknown: error, interpolate or mask."
        )
    rows, flat = _usable(recording)
    found = [_derive(rows, name) for name in wanted]
    missing = [name for name, row in zip(wanted, found, strict=True) if row is None]
    all_zeros = policy == "mask" and len(missing) == len(wanted)
    if missing and (policy == "error" or all_zeros):
        raise _missing(recording, missing, flat)
    if missing and policy == "interpolate":
        rows = {**rows, **_interpolate(recording, rows, missing)}
        found = [_derive(rows, name) for name in wanted]
    mask = np.array([row is not None for row in found])
    silent = np.zeros(recording.signal.shape[1], np.float32)
    kept = [row or _Row(silent, "eeg", "uV") for row in found]
    picked = dataclasses.replace(
        recording,
        signal=np.stack([row.signal for row in kept]).astype(np.float32, copy=False),
        channels=wanted,
        kinds=tuple(row.kind for row in kept),
        units=tuple(row.unit for row in kept),
        filled=tuple(missing),
    )
    return picked, mask


def to_montage(
    recording: Recording,
    montage: Montage,
    present: Bool[np.ndarray, " c"] | None = None,
) -> Recording:
    """Returns the recording re-referenced.

    Args:
        recording: Referential or, for `double_banana`, bipolar.
        montage: `referential` leaves it; `average` is `subtract_average` of the
            recording's own electrodes; `double_banana` returns the 18 longitudinal
            pairs.
        present: Channels that hold a signal, from `pick_channels`; None is all.

    Raises:
        InputError: If the electrodes it needs are missing.
    """
    if montage == "referential":
        return recording
    if montage == "double_banana":
        return pick_channels(recording, DOUBLE_BANANA)[0]
    if montage != "average":
        raise InputError(
            f"--data.montage {montage} is unknown: referential, average or "
            "double_banana."
        )
    every = present is None
    there = recording.channels if every else np.array(recording.channels)[present]
    averaged = [name for name in scalp_electrodes(recording) if name in there]
    return subtract_average(recording, recording, averaged, present)


def scalp_electrodes(recording: Recording) -> tuple[str, ...]:
    """Lists the single scalp electrodes of a recording that hold a signal.

    Left out are the ears, pairs, other kinds of channels, and electrodes that are flat
    or hold NaN or infinity.
    """
    rows, _ = _usable(recording)
    return tuple(
        name
        for name in recording.channels
        if name in rows
        and rows[name].kind == "eeg"
        and name not in EARS
        and split_pair(name) is None
        and np.isfinite(rows[name].signal).all()
    )


def subtract_average(
    picked: Recording,
    whole: Recording,
    electrodes: Sequence[str],
    present: Bool[np.ndarray, " c"] | None = None,
) -> Recording:
    """Returns channels of a recording against the average of its scalp electrodes.

    The mean is that of the head, whichever channels were picked from it. Pairs are
    differences already, and stay.

    Args:
        picked: Channels of `whole`, from `pick_channels`.
        whole: The recording.
        electrodes: Channels of `whole` to average.
        present: Picked channels that hold a signal; None is all.

    Returns:
        The channels; their `reference` names the averaged electrodes.

    Raises:
        InputError: If there are fewer than two electrodes to average.
    """
    if len(electrodes) < 2:
        raise InputError(
            f"{whole.source}: --data.montage average needs two or more electrodes; "
            f"it has {', '.join(whole.channels)}. Use --data.montage referential."
        )
    averaged = [whole.channels.index(name) for name in electrodes]
    mean = whole.signal[averaged].mean(axis=0, dtype=np.float64)
    single = np.array([split_pair(name) is None for name in picked.channels])
    chosen = (np.array(picked.kinds) == "eeg") & single
    if present is not None:
        chosen &= present
    signal = picked.signal.copy()
    signal[chosen] -= mean.astype(np.float32)
    return dataclasses.replace(picked, signal=signal, reference=tuple(electrodes))


def recorded_channels(
    recording: Recording, picked: Recording, policy: Policy
) -> frozenset[str]:
    """Lists the channels of a recording that picked ones were computed from.

    They are the channels themselves, the electrodes of a pair, those of an average
    reference, and, where a policy interpolates, all usable EEG channels; none where it
    masks.
    """
    recorded = set(recording.channels)
    names = set(picked.reference)
    for name in set(picked.channels) - set(picked.filled):
        if name not in recorded:
            first, second = split_pair(name) or ("", "")
            names |= {first, second, f"{second}-{first}"}
        names.add(name)
    if picked.filled and policy == "interpolate":
        rows, _ = _usable(recording)
        names |= {name for name, row in rows.items() if row.kind == "eeg"}
    return frozenset(names & recorded - set(recording.bad_channels))


def _usable(recording: Recording) -> tuple[dict[str, _Row], tuple[str, ...]]:
    """Returns the channels that vary, by name, and the names of the flat ones.

    Channels that are marked as bad are in neither.
    """
    rows: dict[str, _Row] = {}
    flat = []
    parts = zip(recording.signal, recording.kinds, recording.units, strict=True)
    for name, (signal, kind, unit) in zip(recording.channels, parts, strict=True):
        if name in recording.bad_channels:
            continue
        # NaN compares false, so that such a channel stays and is refused later.
        if signal.max() - signal.min() <= _FLAT_RANGE * (unit == "uV"):
            flat.append(name)
        else:
            rows[canonical_name(name)] = _Row(signal, kind, unit)
    return rows, tuple(flat)


def _derive(rows: Mapping[str, _Row], name: str) -> _Row | None:
    """Returns the channel as recorded, or as a difference; None if impossible."""
    if name in rows:
        return rows[name]
    pair = split_pair(name)
    if pair is None:
        return None
    first, second = pair
    if f"{second}-{first}" in rows:
        turned = rows[f"{second}-{first}"]
        return turned._replace(signal=-turned.signal)
    if first not in rows or second not in rows:
        return None
    difference = rows[first].signal - rows[second].signal
    if difference.max() - difference.min() <= _FLAT_RANGE:
        return None
    return rows[first]._replace(signal=difference)


def _missing(
    recording: Recording, missing: Sequence[str], flat: Sequence[str]
) -> InputError:
    dead = f"; flat: {', '.join(flat)}" if flat else ""
    if recording.bad_channels:
        dead += f"; marked as bad: {', '.join(recording.bad_channels)}"
    lost = {part for name in missing for part in (name, *(split_pair(name) or ()))}
    hint = scheme_hint(recording, missing)
    if lost.intersection(flat):
        without = {*flat, *missing, *recording.bad_channels}
        kinds = zip(recording.channels, recording.kinds, strict=True)
        others = [n for n, kind in kinds if kind == "eeg" and n not in without]
        hint += (
            " A flat channel counts as missing: it is the reference, whose signal is "
            "zero, or was not connected. Without it: --data.channels "
            f"{' '.join(others) or 'NAMES'}."
        )
    names = recording.channels
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return InputError(
        f"{recording.source}: missing channels {', '.join(missing)} (it has "
        f"{', '.join(names[:_SHOWN])}{more}{dead}).{hint} Choose others with "
        "--data.channels, or let --data.policy interpolate or mask fill a few."
    )


def _interpolate(
    recording: Recording, rows: Mapping[str, _Row], missing: Sequence[str]
) -> dict[str, _Row]:
    """Computes electrodes that missing channels need, by splines over the others."""
    needed = sorted(
        {
            electrode
            for name in missing
            for electrode in split_pair(name) or (name,)
            if electrode not in rows
        }
    )
    sources = tuple(
        name
        for name, row in rows.items()
        if row.kind == "eeg" and name not in EARS and _has_position(name)
    )
    lost = [name for name in needed if not _has_position(name)]
    if lost or not needed or len(sources) < _MIN_SPLINE_ELECTRODES:
        raise InputError(
            f"{recording.source}: cannot interpolate {', '.join(missing)}: that takes "
            f"{_MIN_SPLINE_ELECTRODES} or more single electrodes of the 10-20 system "
            f"around a place of that system; it has {', '.join(recording.channels)}. "
            "Use --data.policy mask, or leave the channels out."
        )
    weights = spline_weights(sources, tuple(needed))
    signal = weights @ np.stack([rows[name].signal for name in sources])
    return {
        name: _Row(row.astype(np.float32), "eeg", rows[sources[0]].unit)
        for name, row in zip(needed, signal, strict=True)
    }


def _has_position(name: str) -> bool:
    return is_electrode(name) and name in _positions().ch_names


@functools.cache
def _positions():
    import mne

    known = mne.channels.get_builtin_montages()
    # MNE 1.13 renamed the template and warns of the old name.
    newest = next(x for x in ("colin27_1005", "standard_1005") if x in known)
    return mne.channels.make_standard_montage(newest)


@functools.cache
def spline_weights(
    sources: tuple[str, ...], targets: tuple[str, ...]
) -> Float64[np.ndarray, "targets sources"]:
    """Returns the spherical-spline weights of target electrodes over source ones.

    Interpolation is linear, so MNE's of an identity matrix is its matrix.
    """
    import mne

    info = mne.create_info([*sources, *targets], 100.0, "eeg", verbose="error")
    identity = np.eye(len(sources) + len(targets), len(sources))
    raw = mne.io.RawArray(identity, info, verbose="error")
    raw.set_montage(_positions(), verbose="error")
    raw.info["bads"] = list(targets)
    raw.interpolate_bads(method="spline", verbose="error")
    return np.asarray(raw.get_data())[len(sources) :]
