"""One reader for all that MNE and WFDB read, with units that are never guessed."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from eegkd.data.recordings.by_mne import read_mne, read_mne_marks
from eegkd.data.recordings.by_wfdb import read_wfdb
from eegkd.data.recordings.facts import ChannelFacts, join_facts
from eegkd.data.recordings.guard import check_file
from eegkd.data.recordings.names import canonical_names, channel_kinds, is_known
from eegkd.data.recordings.recording import Event, Kind, Recording, Unit
from eegkd.data.recordings.signals import VOLTS, Signals, is_no_voltage, voltage
from eegkd.errors import InputError

StatedUnit = Literal["uV", "mV", "V"]

_TARGET: Mapping[Kind, Unit] = {"ecg": "mV"}
_EEG_RANGE_UV = (1e-3, 1e5)
_RATES = (1e-3, 1e6)
_HEADERS: Mapping[str, tuple[str, ...]] = {
    ".dat": (".hea", ".lay"),
    ".mat": (".hea",),
    ".eeg": (".vhdr",),
    ".vmrk": (".vhdr",),
    ".fdt": (".set",),
}
"""Suffix of a part of a recording -> suffixes of the file that describes it."""
_FOLDER_FORMATS = (".mff", ".ds", ".mefd")


def read_recording(
    path: str | os.PathLike[str],
    *,
    units: StatedUnit | None = None,
    facts: ChannelFacts | None = None,
) -> Recording:
    """Reads a recording of any format that MNE or WFDB reads.

    What a channel is, is settled before its unit is asked for. One whose name is that
    of another signal, or whose dimension is no voltage (mmHg, %), is "misc". Where the
    file has electrodes with a voltage, so is a channel of no known name that states
    none; and so is one that states none and is not of the main kind (EEG; ECG where
    there is no EEG). Times count from the first sample of the file.

    Args:
        path: The file; of a recording in several files any one (`.hea` or `.dat`,
            `.vhdr` or `.eeg`).
        units: Unit of the file's numbers, which overrides the file's for EEG channels,
            and fills in for other channels whose unit the file does not state.
        facts: What a table beside the file says of its channels.

    Returns:
        Signals in uV (ECG in mV; channels that are no voltage unchanged, "n/a"),
        canonical channel names, the annotations as events, what the file marks as bad,
        and the subject and session where the path names them in BIDS words.

    Raises:
        InputError: If the file is missing, damaged, no file or of no known format,
            states no unit, has amplitudes that its unit makes impossible, or holds NaN;
            if facts contradict it.

    Note:
        Where the channels of a file differ in rate, the slower ones are resampled to
        the highest: `resampled` names them.
    """
    if units is not None and units not in ("uV", "mV", "V"):
        raise InputError(f"units={units!r} is unknown; give uV, mV or V.")
    path = _described_by(Path(path))
    signals = read_wfdb(path) if path.suffix == ".hea" else read_mne(path)
    if signals.numbers.shape[1] == 0:
        raise InputError(f"{path}: the file holds no samples. Copy it again.")
    if not _RATES[0] <= signals.rate <= _RATES[1]:
        raise InputError(
            f"{path}: a rate of {signals.rate:g} samples per second is none. Correct "
            "it in the header, or export the file again."
        )
    if facts is not None:
        signals = join_facts(path, signals, facts, overridden=units is not None)
    return _assemble(path, signals, units)


def read_events(path: str | os.PathLike[str]) -> tuple[Event, ...]:
    """Reads the annotations of a file alone, not its signals.

    Raises:
        InputError: If MNE or WFDB cannot read the file.
    """
    path = _described_by(Path(path))
    return (read_wfdb if path.suffix.lower() == ".hea" else read_mne_marks)(path).events


def _described_by(path: Path) -> Path:
    """Returns the file that describes a recording, once it and the given one exist."""
    check_file(path, folder=path.suffix.lower() in _FOLDER_FORMATS)
    headers = (path.with_suffix(suffix) for suffix in _HEADERS.get(path.suffix, ()))
    header = next((header for header in headers if header.exists()), None)
    if header is not None:
        check_file(header)
    return header or path


class _Scale(NamedTuple):
    """Kind of a channel and the unit of its numbers; None where it is no voltage."""

    kind: Kind
    unit: str | None


def _assemble(path: Path, signals: Signals, units: StatedUnit | None) -> Recording:
    """Settles names, kinds and units, and checks what came out."""
    names = [
        name.replace("\0", "").encode("utf-8", "replace").decode()
        for name in signals.names
    ]
    channels = canonical_names(names)
    scales = _scales(path, channels, signals, units)
    kinds: tuple[Kind, ...] = tuple(scale.kind for scale in scales)
    targets: list[Unit] = []
    data = signals.numbers
    for row, (kind, unit) in zip(data, scales, strict=True):
        target = _TARGET.get(kind, "uV") if unit else "n/a"
        if unit:
            row *= VOLTS[unit] / VOLTS[target]
        targets.append(target)
    bad = tuple(channels[i] for i in signals.bad_channels)
    good = [i for i, name in enumerate(channels) if name not in bad]
    with np.errstate(over="ignore"):  # Infinite then, and refused below.
        signal = data.astype(np.float32)
    rows = [signal[i] for i in good]
    check_numbers(path, rows, [channels[i] for i in good], [kinds[i] for i in good])
    return Recording(
        signal=signal,
        channels=channels,
        kinds=kinds,
        units=tuple(targets),
        rate=signals.rate,
        events=signals.events,
        subject=bids_word(path, "sub"),
        session=bids_word(path, "ses"),
        source=str(path),
        bad_channels=bad,
        bad_spans=signals.bad_spans,
        resampled=tuple(channels[i] for i in signals.slower),
        notes=signals.notes,
        date=signals.date,
    )


def _scales(
    path: Path,
    channels: Sequence[str],
    signals: Signals,
    units: StatedUnit | None,
) -> list[_Scale]:
    """Settles what each channel is, then the unit of its numbers."""
    kinds = list(channel_kinds(channels, signals.kinds))
    stated = [voltage(text) for text in signals.dimensions]
    known = [is_known(name) for name in channels]
    facts = zip(known, stated, kinds, strict=True)
    scaled = any(name and unit and kind == "eeg" for name, unit, kind in facts)
    for i, text in enumerate(signals.dimensions):
        nameless = not known[i] and not stated[i] and (text or scaled)
        if is_no_voltage(text) or nameless:
            kinds[i] = "misc"
    for i, kind in enumerate(signals.stated_kinds):
        kinds[i] = kind or kinds[i]
    main = "eeg" if "eeg" in kinds else "ecg"
    scales: list[_Scale] = []
    for i, (name, kind) in enumerate(zip(channels, kinds, strict=True)):
        unit = stated[i]
        if units and kind != "misc" and (kind == "eeg" or not unit):
            unit = units
        if not unit and kind == main and i not in signals.bad_channels:
            raise InputError(
                f"{path}: channel {name} ({kind}) states no unit. Say what one number "
                "means: units='uV', 'mV' or 'V' (--data.unit)."
            )
        scales.append(_Scale(kind if unit else "misc", unit))
    return scales


def check_numbers(
    path: Path,
    data: Iterable[np.ndarray],
    channels: Sequence[str],
    kinds: Sequence[Kind],
) -> None:
    """Refuses NaN, and EEG amplitudes that are impossible in their unit.

    Where there is EEG, NaN in other channels is left to whoever uses them.

    Raises:
        InputError: Naming the file and the channel.
    """
    impossible: list[tuple[str, float]] = []
    num_eeg = 0
    others = {"misc", *kinds} - {"eeg"} if "eeg" in kinds else {"misc"}
    for row, name, kind in zip(data, channels, kinds, strict=True):
        finite = np.isfinite(row)
        if kind not in others and not finite.all():
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
