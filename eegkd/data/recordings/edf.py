"""Facts of an EDF or BDF header, and a check of the file against them.

MNE reads the samples; it infers the length of a truncated file, takes an unknown
physical dimension for volts, a record duration of 0 for a second and an empty range
for one unit, and joins discontinuous records: all of that must be an error here, or
said.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eegkd.errors import InputError

_FIXED = 256
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_RATES = (1.0, 1e6)


class EdfHeader(NamedTuple):
    """The fields that MNE does not check; annotation channels are left out.

    Attributes:
        labels: Labels of the signals.
        dimensions: Physical dimension that each of them states, or "", as MNE sees it.
        samples: Samples of each in a data record.
        unscaled: Positions of the signals whose physical or digital minimum and
            maximum are equal or no numbers, so that nobody knows their scale.
        notes: Sentences about what the header says and the file is not.
    """

    labels: tuple[str, ...]
    dimensions: tuple[str, ...]
    samples: tuple[int, ...]
    unscaled: tuple[int, ...]
    notes: tuple[str, ...]


def read_edf_header(path: Path) -> EdfHeader:
    """Reads and checks the header of an EDF or BDF file.

    The rate of its fastest signal must lie between 1 and a million samples a second.

    Raises:
        InputError: If the file is no EDF or BDF, holds no signal, has a field that is
            no number or an impossible one, is shorter than its header says, or has
            gaps between its records.
    """
    with path.open("rb") as file:
        fixed = file.read(_FIXED)
        # MNE goes by the suffix: 24-bit samples read as 16-bit ones would be noise.
        is_bdf = path.suffix.lower() == ".bdf"
        num_signals = _count(fixed, is_bdf)
        fields = file.read(_FIXED * num_signals)
    start = _FIXED * (num_signals + 1)
    if num_signals < 1 or len(fields) < start - _FIXED:
        raise InputError(
            f"{path}: this is no {path.suffix[1:].upper()} file (its header is not "
            "one). Give it the suffix of its own format, or export it again."
        )
    labels = _column(fields, num_signals, 0, 16)
    kept = [i for i, label in enumerate(labels) if label not in _ANNOTATIONS]
    if not kept:
        raise InputError(
            f"{path}: the file holds annotations only, no signal. Read the recording "
            "that they belong to."
        )
    header = _Numbers(path, fields, labels)
    samples = header.column("samples in a data record", 216, 8, whole=True)
    for i, count in enumerate(samples):
        if count < (i in kept):
            raise header.wrong("samples in a data record", 216, 8, i, "above 0")
    record_s = _record_s(path, fixed[244:252], max(samples[i] for i in kept))
    width = 3 if is_bdf else 2
    record_bytes = width * int(sum(samples))
    stated = int(fixed[236:244].strip(b" \0"))
    notes = _check_length(path, start, record_bytes, stated)
    if fixed[192:197] in (b"EDF+D", b"BDF+D"):
        first = min(set(range(num_signals)) - set(kept), default=num_signals)
        _check_gaps(
            path,
            start=start,
            record_bytes=record_bytes,
            annotations=slice(width * int(sum(samples[:first])), None),
            record_s=record_s,
        )
    scale = {at: header.column(name, at, 8) for at, name in _SCALE.items()}
    # MNE warns of an empty range, and not of one that is no number.
    unscaled = [place for place, i in enumerate(kept) if not _has_scale(scale, i)]
    notes += [
        f"channel {labels[kept[place]]} has no scale in the header"
        for place in unscaled
    ]
    dimensions = _column(fields, num_signals, 96, 8)
    return EdfHeader(
        tuple(labels[i] for i in kept),
        tuple(dimensions[i] for i in kept),
        tuple(int(samples[i]) for i in kept),
        tuple(unscaled),
        tuple(notes),
    )


_SCALE = {
    104: "physical minimum",
    112: "physical maximum",
    120: "digital minimum",
    128: "digital maximum",
}
"""A signal's share of the header before these fields -> name of the field."""


def _has_scale(scale: dict[int, list[float]], signal: int) -> bool:
    low, high, first, last = (values[signal] for values in scale.values())
    # Infinity less infinity is NaN, which is no number either.
    return all(math.isfinite(x) and x for x in (high - low, last - first))


class _Numbers(NamedTuple):
    """The signals' part of a header, read as numbers."""

    path: Path
    fields: bytes
    labels: list[str]

    def column(
        self, name: str, offset: int, width: int, *, whole: bool = False
    ) -> list[float]:
        """Reads one field of all signals.

        Raises:
            InputError: If one is no number, or no whole one.
        """
        cells = _column(self.fields, len(self.labels), offset, width)
        out: list[float] = []
        for i, cell in enumerate(text.strip(" \0") for text in cells):
            try:  # Where the decimal sign is a comma, MNE reads it so too.
                out.append(int(cell) if whole else float(cell.replace(",", ".")))
            except ValueError:
                kind = "a whole number" if whole else "a number"
                raise self.wrong(name, offset, width, i, kind) from None
        return out

    def wrong(
        self, name: str, offset: int, width: int, signal: int, kind: str
    ) -> InputError:
        """Makes the error of one field, with the place where it can be corrected."""
        cell = _column(self.fields, len(self.labels), offset, width)[signal]
        place = _FIXED + offset * len(self.labels) + width * signal
        return InputError(
            f"{self.path}: {name} of signal {self.labels[signal]!r} is {cell!r} in the "
            f"header, which must be {kind}. Export the file again, or correct the "
            f"{width} characters from byte {place} on."
        )


def _record_s(path: Path, cell: bytes, samples: float) -> float:
    """Reads the duration of a data record; it must fit a recording's rate."""
    text = cell.decode("latin-1").strip(" \0")
    try:
        record_s = float(text)
    except ValueError:
        record_s = math.nan
    rate = samples / record_s if record_s > 0 else math.nan
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InputError(
            f"{path}: a data record lasts {text!r} seconds in the header and holds "
            f"{samples:g} samples, which no recording has. Export the file again, or "
            "correct the 8 characters from byte 244 on."
        )
    return record_s


def _count(fixed: bytes, is_bdf: bool) -> int:
    """Returns the number of signals; 0 if the bytes are no header of that format."""
    right = fixed[:8] == b"\xffBIOSEMI" if is_bdf else fixed[:8].rstrip() == b"0"
    places = ((184, 192), (236, 244), (252, 256))
    numbers = [fixed[start:stop].strip(b" \0") for start, stop in places]
    if not right or not all(re.fullmatch(rb"-?\d+", n) for n in numbers):
        return 0
    num_signals = int(numbers[2])
    return num_signals if int(numbers[0]) == _FIXED * (num_signals + 1) else 0


def _column(fields: bytes, count: int, offset: int, width: int) -> list[str]:
    """Returns a field of every signal; `offset` is a signal's share before it."""
    start = offset * count
    cells = (fields[start + width * i :][:width] for i in range(count))
    return [cell.decode("latin-1").strip() for cell in cells]


def _check_length(path: Path, start: int, record_bytes: int, stated: int) -> list[str]:
    """Refuses a file with fewer records than stated (-1: unknown, so accepted).

    Returns:
        A sentence where it has more of them: all are read.
    """
    present = (path.stat().st_size - start) // max(record_bytes, 1)
    if present < max(stated, 1):
        raise InputError(
            f"{path}: truncated: the header says {stated} data records, the file "
            f"holds {present}. Copy or download it again."
        )
    if 0 <= stated < present:
        return [f"the header says {stated} data records; all {present} were read"]
    return []


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
