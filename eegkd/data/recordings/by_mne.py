"""Recordings of every format that MNE reads, with what it does not check checked."""

import datetime
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eegkd.data.recordings.edf import EdfHeader, read_edf_header
from eegkd.data.recordings.guard import check_size, reading
from eegkd.data.recordings.recording import Kind
from eegkd.data.recordings.signals import VOLTS, Marks, Signals, sort_marks, voltage
from eegkd.data.recordings.structure import check_structure

_EDF = (".edf", ".bdf")
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("eeg", "seeg", "ecog", "dbs"), "eeg"),
    **{"eog": "eog", "emg": "emg", "ecg": "ecg"},
}
_LOST = re.compile(r"Omitted (\d+) annotation")
_UNSCALED = re.compile(
    r"(?:Physical range|Scaling factor) .*?defined in .*?channels:\n(.*)"
)
_LATIN = "its annotations are no UTF-8 and were read as Latin-1"


def read_mne(path: Path) -> Signals:
    """Reads a recording.

    The slower channels of an EDF file are resampled by MNE to the highest rate, and
    named in `slower`. Annotations that are no UTF-8 are read as Latin-1, with a note.

    Raises:
        InputError: If the file is damaged, or MNE cannot read it.
    """
    # A scale of infinity gives NaN: what is in use is checked afterwards.
    with reading(path, *_words(path)), np.errstate(all="ignore"):
        header, raw, notes = _open(path)
        check_size(path, len(raw.ch_names), raw.n_times)
        data = raw.get_data(verbose="error")
        types = raw.get_channel_types()
        kinds: list[Kind] = [_KINDS.get(kind, "misc") for kind in types]
        if header is None:
            factors, dimensions = _units(path, raw, kinds)
        else:
            factors = [_edf_factor(text) for text in header.dimensions]
            dimensions = [text.strip(" \0") for text in header.dimensions]
        is_stim = np.array([kind == "stim" for kind in types])
        data /= np.where(is_stim, 1.0, factors)[:, None]
        rate = float(raw.info["sfreq"])
        marks = list(_annotations(raw))
        if header is not None:
            for trigger in data[is_stim]:
                marks += _rises(trigger, rate)
        found = sort_marks(marks)
        bad = {raw.ch_names.index(name) for name in raw.info["bads"]}
        bad.update(header.unscaled if header else ())
        return Signals(
            numbers=data,
            names=raw.ch_names,
            kinds=kinds,
            dimensions=dimensions,
            rate=rate,
            events=found.events,
            bad_spans=found.bad_spans,
            bad_channels=tuple(sorted(bad)),
            slower=_slower(header),
            notes=(*notes, *found.notes),
            date=_date(raw),
        )


def _date(raw: Any) -> datetime.datetime | None:
    """Returns when the first sample was taken; the cropped part comes before it."""
    start = raw.info["meas_date"]
    if start is None:
        return None
    return (start + datetime.timedelta(seconds=raw.first_time)).replace(tzinfo=None)


def read_mne_marks(path: Path) -> Marks:
    """Reads the annotations of a file alone, not its signals.

    Raises:
        InputError: As `read_mne`.
    """
    with reading(path, *_words(path)), np.errstate(all="ignore"):
        _, raw, notes = _open(path)
        found = sort_marks(_annotations(raw))
        return found._replace(notes=(*notes, *found.notes))


def _words(path: Path) -> tuple[str, str]:
    what = path.suffix or "a recording"
    cure = "Check that the file is whole and its suffix is right."
    if what.lower() == ".cnt":
        cure += " If it is ANT Neuro's, that takes a package: pip install antio."
    return f"MNE cannot read it as {what}", cure


def _open(path: Path) -> tuple[EdfHeader | None, Any, tuple[str, ...]]:
    """Opens a file that its own structure says is sound."""
    suffix = path.suffix.lower()
    header, notes = None, ()
    if suffix in _EDF:
        header = read_edf_header(path)
        notes = header.notes
    check_structure(path)
    try:
        raw, more = _raw(path)
    except Exception as error:
        # MNE's own advice is an option of a function that no command has.
        if header is None or "latin1" not in str(error):
            raise
        raw, more = _raw(path, encoding="latin1")
        notes += (_LATIN,)
    return header, raw, tuple(dict.fromkeys(notes + more))


def _raw(path: Path, **options: Any) -> tuple[Any, tuple[str, ...]]:
    """Opens a file with MNE, and turns the warnings that matter into notes.

    Channels whose scale MNE does not find, and sets to 1, are added to its bad ones.
    """
    import mne

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        raw = mne.io.read_raw(path, preload=False, verbose="warning", **options)
    notes = []
    for text in (str(warning.message) for warning in said):
        if lost := _LOST.match(text):
            count = lost[1]
            notes.append(f"{count} annotations lie outside the recording, left out")
        if unscaled := _UNSCALED.match(text):
            names = [name for name in raw.ch_names if name in unscaled[1].split(", ")]
            raw.info["bads"] = sorted({*raw.info["bads"], *names})
            notes += [f"channel {name} has no scale in the header" for name in names]
    return raw, tuple(dict.fromkeys(notes))


def _slower(header: EdfHeader | None) -> tuple[int, ...]:
    if header is None:
        return ()
    most = max(header.samples)
    return tuple(i for i, num in enumerate(header.samples) if num < most)


def _units(
    path: Path, raw: Any, kinds: Sequence[Kind]
) -> tuple[list[float], list[str]]:
    """Returns MNE's volts as numbers of the format's own unit."""
    default = "V" if path.name.lower().endswith((".fif", ".fif.gz")) else "uV"
    known = getattr(raw, "_orig_units", {})
    units: list[str] = []
    factors = []
    for name, kind in zip(raw.ch_names, kinds, strict=True):
        unit = voltage(str(known.get(name, ""))) or default
        factors.append(1.0 if kind == "misc" else VOLTS[unit])
        units.append("" if kind == "misc" else unit)
    return factors, units


def _edf_factor(dimension: str) -> float:
    """Returns the factor of MNE for an EDF unit, in the spellings that it knows."""
    if dimension in ("\u03bcV", "\u00b5V", "\x83\xcaV", "uV"):
        return 1e-6
    return 1e-3 if dimension == "mV" else 1.0


def _annotations(raw: Any) -> Iterator[tuple[float, float, str, Sequence[str]]]:
    """Lists annotations, with onsets counted from the first sample that is there.

    MNE counts them from the start of the acquisition, with a measurement date or
    without: `first_time` seconds earlier where a recording was cropped.
    """
    annotations = raw.annotations
    yield from zip(
        annotations.onset - raw.first_time,
        annotations.duration,
        annotations.description,
        annotations.ch_names,
        strict=True,
    )


def _rises(
    values: np.ndarray, rate: float
) -> list[tuple[float, float, str, Sequence[str]]]:
    """Lists the rises of a trigger channel, labelled by the new value."""
    codes = values.astype(np.int64)
    rises = np.flatnonzero(np.diff(codes) > 0) + 1
    return [(float(i / rate), 0.0, str(codes[i]), ()) for i in rises]
