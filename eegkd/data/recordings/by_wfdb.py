"""WFDB records, each signal at its own rate."""

import re
import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from eegkd.data.recordings.guard import check_companions, check_size, reading
from eegkd.data.recordings.recording import Kind
from eegkd.data.recordings.signals import Signals, sort_marks

_GAIN = re.compile(rb"^\S+\s+\S+\s+[-+.\dEe]+(?:\([-+\d]+\))?/(\S+)")


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

    name = str(path.with_suffix(""))
    header: Any = wfdb.rdheader(name)
    check_companions(path, filter(None, getattr(header, "file_name", None) or ()))
    per_frame = max(getattr(header, "samps_per_frame", None) or [1])
    check_size(path, header.n_sig, (header.sig_len or 0) * per_frame)
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
        dimensions=_dimensions(path, [str(unit or "") for unit in record.units]),
        rate=float(record.fs) * max(per_frame),
        events=found.events,
        bad_spans=found.bad_spans,
        slower=tuple(i for i, n in enumerate(per_frame) if n < max(per_frame)),
        notes=found.notes,
    )


def _at_one_rate(
    signals: Sequence[np.ndarray], per_frame: Sequence[int], fs: float
) -> np.ndarray:
    """Resamples signals of fewer samples a frame to the rate of the fastest."""
    from eegkd.data.recordings.filtering import filter_and_resample

    most = max(per_frame)
    num = max(len(row) for row in signals)
    out = np.empty((len(signals), num))
    for row, signal, count in zip(out, signals, per_frame, strict=True):
        if count == most:
            row[:] = signal
        elif np.isfinite(signal).all():
            row[:] = filter_and_resample(signal, fs * count, Fraction(most, count))
        else:  # A filter would spread a missing sample over all others.
            row[:] = signal[np.arange(num) * count // most]
    return out


def _dimensions(path: Path, units: list[str]) -> list[str]:
    """Returns units with the letters that WFDB drops, as the mu of a microvolt."""
    text = path.read_bytes()
    if text.isascii():
        return units
    lines = [line.strip() for line in text.splitlines()]
    signals = [line for line in lines if line and not line.startswith(b"#")][1:]
    stated = [_GAIN.match(line) for line in signals]
    if len(stated) != len(units):
        return units
    found = zip(stated, units, strict=True)
    return [match[1].decode("utf-8", "replace") if match else u for match, u in found]
