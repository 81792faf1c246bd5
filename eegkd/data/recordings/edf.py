"""Facts of an EDF or BDF header, and a check of the file against them.

MNE reads the samples; it infers the length of a truncated file, takes an unknown
physical dimension for volts and joins discontinuous records, all of which must be
errors here.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eegkd.errors import InputError

_FIXED = 256
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")


class EdfHeader(NamedTuple):
    """The fields that MNE does not check.

    Attributes:
        labels: Labels of the signals, annotation channels left out.
        dimensions: Physical dimension that each of them states, or "".
    """

    labels: tuple[str, ...]
    dimensions: tuple[str, ...]


def read_edf_header(path: Path) -> EdfHeader:
    """Reads and checks the header of an EDF or BDF file.

    Raises:
        InputError: If the file is no EDF or BDF, holds no signal, is shorter than its
            header says, or has gaps between its records.
    """
    with path.open("rb") as file:
        fixed = file.read(_FIXED)
        # MNE goes by the suffix: 24-bit samples read as 16-bit ones would be noise.
        is_bdf = path.suffix.lower() == ".bdf"
        num_signals = _count(fixed, is_bdf)
        fields = file.read(_FIXED * num_signals)
    if num_signals < 1 or len(fields) < _FIXED * num_signals:
        raise InputError(
            f"{path}: this is no {path.suffix[1:].upper()} file (its header is not "
            "one). Give it the suffix of its own format, or export it again."
        )
    labels = _column(fields, num_signals, 0, 16)
    dimensions = _column(fields, num_signals, 96, 8)
    samples = [int(text or 0) for text in _column(fields, num_signals, 216, 8)]
    kept = [i for i, label in enumerate(labels) if label not in _ANNOTATIONS]
    if not kept:
        raise InputError(
            f"{path}: the file holds annotations only, no signal. Read the recording "
            "that they belong to."
        )
    record_bytes = (3 if is_bdf else 2) * sum(samples)
    stated = int(fixed[236:244])
    _check_length(path, _FIXED * (num_signals + 1), record_bytes, stated)
    if fixed[192:197] in (b"EDF+D", b"BDF+D"):
        first = min(set(range(num_signals)) - set(kept), default=num_signals)
        _check_gaps(
            path,
            start=_FIXED * (num_signals + 1),
            record_bytes=record_bytes,
            annotations=slice((3 if is_bdf else 2) * sum(samples[:first]), None),
            record_s=float(fixed[244:252]),
        )
    return EdfHeader(tuple(labels[i] for i in kept), tuple(dimensions[i] for i in kept))


def _count(fixed: bytes, is_bdf: bool) -> int:
    """Returns the number of signals; 0 if the bytes are no header of that format."""
    right = fixed[:8] == b"\xffBIOSEMI" if is_bdf else fixed[:8].rstrip() == b"0"
    numbers = [fixed[start:stop].strip() for start, stop in ((236, 244), (252, 256))]
    if not right or not all(re.fullmatch(rb"-?\d+", n) for n in numbers):
        return 0
    return int(numbers[1])


def _column(fields: bytes, count: int, offset: int, width: int) -> list[str]:
    """Returns a field of every signal; `offset` is a signal's share before it."""
    start = offset * count
    cells = (fields[start + width * i :][:width] for i in range(count))
    return [cell.decode("latin-1").strip() for cell in cells]


def _check_length(path: Path, start: int, record_bytes: int, stated: int) -> None:
    """Refuses a file with fewer records than stated (-1: unknown, so accepted)."""
    present = (path.stat().st_size - start) // max(record_bytes, 1)
    if present < max(stated, 1):
        raise InputError(
            f"{path}: truncated: the header says {stated} data records, the file "
            f"holds {present}. Copy or download it again."
        )


def _check_gaps(
    path: Path, *, start: int, record_bytes: int, annotations: slice, record_s: float
) -> None:
    """Refuses a discontinuous file whose records do not follow each other."""
    records = np.memmap(path, np.uint8, "r", offset=start)
    records = records[: len(records) // record_bytes * record_bytes]
    onsets = []
    for record in records.reshape(-1, record_bytes):
        onset = re.match(rb"([+-]\d+\.?\d*)\x14", record[annotations].tobytes())
        if onset:
            onsets.append(float(onset.group(1)))
    steps = np.diff(onsets)
    gaps = np.flatnonzero(np.abs(steps - record_s) > 0.5 * record_s)
    if len(gaps):
        raise InputError(
            f"{path}: a discontinuous recording (EDF+D) with {len(gaps)} gaps, the "
            f"first after {onsets[gaps[0]]:g} s. Export each continuous part as a "
            "file of its own."
        )
