"""WFDB records, each signal at its own rate."""

import re
import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.data.recordings.guard import check_companions, check_size, reading
from eegkd.data.recordings.recording import Kind
from eegkd.data.recordings.signals import Signals, sort_marks

_PER_FRAME = re.compile(rb"\d+x(\d+)")
_GAIN = re.compile(rb"[-+.\dEe]+(?:\([-+\d]+\))?/(\S+)")


def read_wfdb(path: Path) -> Signals:
    """Reads a record by its header.

    WFDB's own default averages the samples of a frame: a signal of four samples a
    frame would come at a quarter of its rate, aliased. Here every sample is read; where
    signals differ in rate the slower ones are resampled to the highest (held, where
    they have samples that are missing) and named.

    Raises:
        InputError: If WFDB cannot read the record, or it holds no signal.
    """
    cure = "Check that its header and signal files lie together and are whole."
    with (
        reading(path, "WFDB cannot read the record", cure),
        warnings.catch_warnings(),
    ):
        # wfdb 4.3 builds its tables in a way that pandas 3 warns of.
        warnings.filterwarnings("ignore", "The inplace keyword", DeprecationWarning)
        return _read(path)


def _read(path: Path) -> Signals:
    import wfdb

    header = _header(path)
    check_companions(path, header.files)
    check_size(path, header.num_signals, header.num_frames * header.per_frame)
    name = str(path.with_suffix(""))
    record: Any = wfdb.rdrecord(name, smooth_frames=False)
    if not record.n_sig:
        raise ValueError("it holds no signal")
    per_frame = record.samps_per_frame
    marks = []
    if path.with_suffix(".atr").exists():
        check_companions(path, [path.with_suffix(".atr").name])
        ann: Any = wfdb.rdann(name, "atr")
        clock = float(ann.fs or record.fs)
        pairs = zip(ann.sample, ann.symbol or (), strict=True)
        marks = [(float(s / clock), 0.0, str(symbol), ()) for s, symbol in pairs]
    found = sort_marks(marks)
    names = [name or f"ch{i}" for i, name in enumerate(record.sig_name)]
    kinds: list[Kind] = ["misc"] * len(names)
    return Signals(
        numbers=_at_one_rate(record.e_p_signal, per_frame, float(record.fs)),
        names=names,
        kinds=kinds,
        dimensions=[
            said or str(unit or "")
            for said, unit in zip(_said(header, names), record.units, strict=True)
        ],
        rate=float(record.fs) * max(per_frame),
        events=found.events,
        bad_spans=found.bad_spans,
        slower=tuple(i for i, n in enumerate(per_frame) if n < max(per_frame)),
        notes=found.notes,
        date=record.base_datetime,
    )


def _at_one_rate(
    signals: Sequence[np.ndarray], per_frame: Sequence[int], fs: float
) -> np.ndarray:
    """Resamples signals of fewer samples a frame to the rate of the fastest."""
    most = max(per_frame)
    num = max(len(row) for row in signals)
    out = np.empty((len(signals), num))
    for row, signal, count in zip(out, signals, per_frame, strict=True):
        if count == most:
            row[:] = signal
        elif np.isfinite(signal).all():
            from eegkd.data.recordings.filtering import filter_and_resample

            row[:] = filter_and_resample(signal, fs * count, Fraction(most, count))
        else:  # A filter would spread a missing sample over all others.
            row[:] = signal[np.arange(num) * count // most]
    return out


class _Header(NamedTuple):
    """Sizes and parts of a record, read without WFDB, which takes its word for them.

    Attributes:
        num_signals: Number of signals.
        num_frames: Frames, or 0 where the header leaves them to the files.
        per_frame: Samples a frame of the fastest signal.
        files: Names of the signal files, or of the segments.
        units: Units of the signals, where it has letters that WFDB drops.
    """

    num_signals: int
    num_frames: int
    per_frame: int
    files: tuple[str, ...]
    units: tuple[str, ...]


def _header(path: Path) -> _Header:
    text = path.read_bytes()
    stripped = (line.strip() for line in text.splitlines())
    lines = [line.split() for line in stripped if not line.startswith(b"#")]
    first, *signals = filter(None, lines)
    formats = (line[1] for line in signals if len(line) > 1)
    counts = [int(found[1]) for found in map(_PER_FRAME.match, formats) if found]
    units = ()
    if not text.isascii():
        gains = (_GAIN.match(line[2]) for line in signals if len(line) > 2)
        units = tuple(g[1].decode("utf-8", "replace") if g else "" for g in gains)
    return _Header(
        num_signals=int(first[1]),
        num_frames=int(first[3]) if len(first) > 3 else 0,
        per_frame=max(counts, default=1),
        files=tuple(dict.fromkeys(line[0].decode("latin-1") for line in signals)),
        units=units,
    )


def _said(header: _Header, names: Sequence[str]) -> Sequence[str]:
    """Returns the header's own units where it has one for each signal, else ""s."""
    return header.units if len(header.units) == len(names) else [""] * len(names)
