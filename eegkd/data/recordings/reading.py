"""One reader for all that MNE and WFDB read, with units that are never guessed."""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from eegkd.data.recordings.edf import read_edf_header
from eegkd.data.recordings.names import canonical_names, channel_kinds
from eegkd.data.recordings.recording import Event, Kind, Recording, Unit
from eegkd.errors import InputError

StatedUnit = Literal["uV", "mV", "V"]

_VOLTS: Mapping[str, float] = {"nV": 1e-9, "uV": 1e-6, "mV": 1e-3, "V": 1.0}
_SPELLINGS: Mapping[str, str] = {
    **{"nv": "nV", "mv": "mV", "v": "V", "volt": "V", "volts": "V"},
    **dict.fromkeys(
        ("uv", "\u00b5v", "\u03bcv", "\x83\xcav", "microv", "microvolt"), "uV"
    ),
}
_TARGET: Mapping[Kind, Unit] = {"ecg": "mV"}
_EEG_RANGE_UV = (1e-3, 1e5)
_HEADERS: Mapping[str, tuple[str, ...]] = {
    ".dat": (".hea", ".lay"),
    ".mat": (".hea",),
    ".eeg": (".vhdr",),
    ".vmrk": (".vhdr",),
    ".fdt": (".set",),
}
"""Suffix of a part of a recording -> suffixes of the file that describes it."""
_FOLDER_FORMATS = (".mff", ".ds", ".mefd")
_MNE_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("eeg", "seeg", "ecog", "dbs"), "eeg"),
    **{"eog": "eog", "emg": "emg", "ecg": "ecg"},
}


class _Signals(NamedTuple):
    """Result of a reader, before names, kinds and units are settled.

    Attributes:
        numbers: `f64[c, t]`, as the file states them.
        names: Names as the file spells them.
        kinds: Kinds that the reader takes the channels for.
        units: "nV", "uV", "mV", "V", or None where the file states none of these.
        rate: Samples per second.
        events: Events in time order.
    """

    numbers: np.ndarray
    names: Sequence[str]
    kinds: Sequence[Kind]
    units: Sequence[str | None]
    rate: float
    events: tuple[Event, ...]


def read_recording(
    path: str | os.PathLike[str], *, units: StatedUnit | None = None
) -> Recording:
    """Reads a recording of any format that MNE or WFDB reads.

    Args:
        path: The file; of a recording in several files any one (`.hea` or `.dat`,
            `.vhdr` or `.eeg`).
        units: Unit of the file's numbers, which overrides the file's for EEG channels,
            and fills in for other channels whose unit the file does not state.

    Returns:
        Signals in uV (ECG in mV; channels that are no voltage unchanged, "n/a"),
        canonical channel names, the annotations as events, and the subject and
        session where the path names them in BIDS words.

    Raises:
        InputError: If the file is missing, damaged or of no known format, states no
            unit, has amplitudes that its unit makes impossible, or holds NaN.

    Note:
        Where the channels of an EDF file differ in rate, MNE resamples the slower ones
        to the highest.
    """
    if units is not None and units not in ("uV", "mV", "V"):
        raise InputError(f"units={units!r} is unknown; give uV, mV or V.")
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file. Check the path.")
    if path.is_dir() and path.suffix.lower() not in _FOLDER_FORMATS:
        raise InputError(
            f"{path}: a folder, not a recording. Name one file in it, or prepare the "
            "whole folder with --data.corpus folder."
        )
    headers = (path.with_suffix(suffix) for suffix in _HEADERS.get(path.suffix, ()))
    path = next((header for header in headers if header.exists()), path)
    signals = _read_wfdb(path) if path.suffix == ".hea" else _read_mne(path)
    if signals.numbers.shape[1] == 0:
        raise InputError(f"{path}: the file holds no samples. Copy it again.")
    return _assemble(path, signals, units)


def read_events(path: str | os.PathLike[str]) -> tuple[Event, ...]:
    """Reads the annotations of a file alone, not its signals.

    Raises:
        InputError: If MNE or WFDB cannot read the file.
    """
    path = Path(path)
    if path.suffix.lower() == ".hea":
        return _read_wfdb(path).events
    if path.suffix.lower() in (".edf", ".bdf"):
        read_edf_header(path)
    return _in_order(_mne_events(_open_mne(path)))


def _open_mne(path: Path) -> Any:
    import mne

    try:
        return mne.io.read_raw(path, preload=False, verbose="error")
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(
        f"{path}: MNE cannot read it as {path.suffix or 'a recording'} ({reason[0]}). "
        "Check that the file is whole and its suffix is right."
    )


def _read_mne(path: Path) -> _Signals:
    stated: Sequence[str] | None = None
    if path.suffix.lower() in (".edf", ".bdf"):
        stated = read_edf_header(path).dimensions
    raw = _open_mne(path)
    try:
        data = raw.get_data(verbose="error")
    except Exception as error:
        raise _unreadable(path, error) from error
    types = raw.get_channel_types()
    kinds: list[Kind] = [_MNE_KINDS.get(kind, "misc") for kind in types]
    if stated is None:
        factors, units = _mne_units(path, raw, kinds)
    else:
        units = [_SPELLINGS.get(text.casefold()) for text in stated]
        factors = [_mne_edf_factor(text) for text in stated]
    is_stim = np.array([kind == "stim" for kind in types])
    data /= np.where(is_stim, 1.0, factors)[:, None]
    rate = float(raw.info["sfreq"])
    events = _mne_events(raw)
    if stated is not None:
        for trigger in data[is_stim]:
            events += _trigger_events(trigger, rate)
    return _Signals(data, raw.ch_names, kinds, units, rate, _in_order(events))


def _mne_units(
    path: Path, raw: Any, kinds: Sequence[Kind]
) -> tuple[list[float], list[str | None]]:
    """Returns MNE's volts as numbers of the format's own unit."""
    default = "V" if path.name.lower().endswith((".fif", ".fif.gz")) else "uV"
    known = getattr(raw, "_orig_units", {})
    units: list[str | None] = []
    factors = []
    for name, kind in zip(raw.ch_names, kinds, strict=True):
        unit = _SPELLINGS.get(str(known.get(name, "")).casefold(), default)
        factors.append(1.0 if kind == "misc" else _VOLTS[unit])
        units.append(None if kind == "misc" else unit)
    return factors, units


def _mne_edf_factor(dimension: str) -> float:
    """Returns the factor of MNE for an EDF unit, in the spellings that it knows."""
    if dimension in ("\u03bcV", "\u00b5V", "\x83\xcaV", "uV"):
        return 1e-6
    return 1e-3 if dimension == "mV" else 1.0


def _mne_events(raw: Any) -> list[Event]:
    """Returns annotations, with onsets counted from the first sample."""
    annotations = raw.annotations
    shift = raw.first_time if annotations.orig_time is not None else 0.0
    rows = zip(
        annotations.onset - shift,
        annotations.duration,
        annotations.description,
        annotations.ch_names,
        strict=True,
    )
    return [
        Event(
            onset_s=float(onset),
            duration_s=float(duration),
            label=str(label),
            channels=canonical_names(names),
        )
        for onset, duration, label, names in rows
    ]


def _trigger_events(values: np.ndarray, rate: float) -> list[Event]:
    """Returns the rises of a trigger channel as events, labelled by the new value."""
    codes = values.astype(np.int64)
    rises = np.flatnonzero(np.diff(codes) > 0) + 1
    return [
        Event(onset_s=float(i / rate), duration_s=0.0, label=str(codes[i]))
        for i in rises
    ]


def _read_wfdb(path: Path) -> _Signals:
    record_name = str(path.with_suffix(""))
    ann = None
    with warnings.catch_warnings():
        # wfdb 4.3 builds its tables in a way that pandas 3 warns of.
        warnings.filterwarnings("ignore", "The inplace keyword", DeprecationWarning)
        import wfdb

        try:
            record: Any = wfdb.rdrecord(record_name)
            if path.with_suffix(".atr").exists():
                ann = wfdb.rdann(record_name, "atr")
        except Exception as error:
            raise InputError(
                f"{path}: WFDB cannot read the record ({error}). Check that its header "
                "and signal files lie together and are whole."
            ) from error
    if record.p_signal is None:
        raise InputError(f"{path}: the record holds no signal. Copy it again.")
    names = [name or f"ch{i}" for i, name in enumerate(record.sig_name)]
    units = [_SPELLINGS.get(str(unit).casefold()) for unit in record.units]
    kinds: list[Kind] = ["misc"] * len(names)
    rate = float(record.fs)
    events: list[Event] = []
    if ann is not None:
        events = [
            Event(onset_s=float(sample / rate), duration_s=0.0, label=str(symbol))
            for sample, symbol in zip(ann.sample, ann.symbol or (), strict=True)
        ]
    signal = np.ascontiguousarray(record.p_signal.T)
    return _Signals(signal, names, kinds, units, rate, _in_order(events))


def _in_order(events: Sequence[Event]) -> tuple[Event, ...]:
    return tuple(sorted(events, key=lambda event: event.onset_s))


def _assemble(path: Path, signals: _Signals, units: StatedUnit | None) -> Recording:
    """Settles names, kinds and units, and checks what came out."""
    channels = canonical_names(signals.names)
    kinds = channel_kinds(channels, signals.kinds)
    targets: list[Unit] = []
    data = signals.numbers
    for row, kind, name, stated in zip(
        data, kinds, channels, signals.units, strict=True
    ):
        unit = units if units and (kind == "eeg" or not stated) else stated
        if kind == "misc":
            unit = stated
        elif unit is None:
            raise InputError(
                f"{path}: channel {name} ({kind}) states no unit. Say what one number "
                "means: units='uV', 'mV' or 'V' (--data.unit)."
            )
        target = _TARGET.get(kind, "uV") if unit else "n/a"
        if unit:
            row *= _VOLTS[unit] / _VOLTS[target]
        targets.append(target)
    check_numbers(path, data, channels, kinds)
    return Recording(
        signal=data.astype(np.float32),
        channels=channels,
        kinds=kinds,
        units=tuple(targets),
        rate=signals.rate,
        events=signals.events,
        subject=bids_word(path, "sub"),
        session=bids_word(path, "ses"),
        source=str(path),
    )


def check_numbers(
    path: Path, data: np.ndarray, channels: Sequence[str], kinds: Sequence[Kind]
) -> None:
    """Refuses NaN, and EEG amplitudes that are impossible in their unit.

    Raises:
        InputError: Naming the file and the channel.
    """
    impossible: list[tuple[str, float]] = []
    num_eeg = 0
    for row, name, kind in zip(data, channels, kinds, strict=True):
        finite = np.isfinite(row)
        if kind != "misc" and not finite.all():
            raise InputError(
                f"{path}: channel {name} holds NaN or infinite samples, the first at "
                f"sample {int(np.argmin(finite))}. Cut or interpolate them, or leave "
                "the channel out of the file."
            )
        if kind != "eeg":
            continue
        amplitude = _amplitude(row)
        if amplitude > 0:
            num_eeg += 1
            if not _EEG_RANGE_UV[0] <= amplitude <= _EEG_RANGE_UV[1]:
                impossible.append((name, amplitude))
    # One dead or saturated electrode is no matter of units; half of them are.
    if impossible and 2 * len(impossible) >= num_eeg:
        name, amplitude = impossible[0]
        raise InputError(
            f"{path}: EEG channel {name} has a median deviation of {amplitude:.2g} uV, "
            "impossible for EEG: the stated unit is wrong. Say what one number of the "
            "file means: units='uV', 'mV' or 'V' (--data.unit)."
        )


def _amplitude(row: np.ndarray) -> float:
    """Computes the median absolute deviation; the standard one where that is 0."""
    # A thousand samples of each channel tell the unit: sorting hours would be slow.
    some = row[:: max(1, len(row) // 1000)]
    spread = float(np.median(np.abs(some - np.median(some))))
    return spread if spread > 0 else float(row.std())


def bids_word(path: Path, entity: str) -> str:
    """Returns the value of a BIDS entity in a path ("01" of "sub-01"), or ""."""
    found = re.findall(rf"(?:^|[/_\\]){entity}-([A-Za-z0-9]+)", str(path))
    return found[-1] if found else ""
