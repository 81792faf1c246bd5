"""Writes small EDF and EDF+ files, byte by byte as the standard says."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def write_edf(
    path: Path,
    signal: np.ndarray,
    labels: Sequence[str],
    *,
    rate: int = 100,
    dimension: str | Sequence[str] = "uV",
    physical_max: float = 3276.7,
    annotations: Sequence[tuple[float, float, str]] = (),
    record_onsets: Sequence[float] = (),
    slower: Mapping[str, int] | None = None,
    num_records: int | None = None,
) -> Path:
    """Writes whole seconds of `signal [c, t]`, one record a second.

    `slower` names channels of which only every n-th sample is stored.
    `annotations` (onset, duration, text) and `record_onsets` add an EDF+ channel;
    `num_records` is what the header says, if it shall lie.
    """
    num_channels, num_samples = signal.shape
    seconds = num_samples // rate
    dimensions = [dimension] * num_channels if isinstance(dimension, str) else dimension
    digital = np.clip(np.round(signal / physical_max * 32767), -32767, 32767)
    digital = digital.astype("<i2")[:, : seconds * rate].reshape(-1, seconds, rate)
    plus = bool(annotations or record_onsets)
    tals = _tals(annotations, record_onsets or range(seconds), seconds) if plus else []
    tal_samples = max((len(tal) + 1) // 2 for tal in tals) if tals else 0

    steps = [(slower or {}).get(label, 1) for label in labels]
    rows: list[tuple[str, str, str, str, int]] = [
        (label, dim, f"{-physical_max:g}", f"{physical_max:g}", rate // step)
        for label, dim, step in zip(labels, dimensions, steps, strict=True)
    ]
    if plus:
        rows.append(("EDF Annotations", "", "-1", "1", tal_samples))
    kind = ("EDF+D" if record_onsets else "EDF+C") if plus else ""
    head = _text("0", 8) + _text("X X X X", 80) + _text("Startdate X X X X", 80)
    head += _text("01.01.20", 8) + _text("00.00.00", 8)
    head += _text(str(256 * (len(rows) + 1)), 8) + _text(kind, 44)
    head += _text(str(seconds if num_records is None else num_records), 8)
    head += _text("1", 8) + _text(str(len(rows)), 4)
    columns = [
        ([row[0] for row in rows], 16),
        ([""] * len(rows), 80),
        ([row[1] for row in rows], 8),
        ([row[2] for row in rows], 8),
        ([row[3] for row in rows], 8),
        (["-32767"] * num_channels + ["-32768"] * plus, 8),
        (["32767"] * len(rows), 8),
        ([""] * len(rows), 80),
        ([str(row[4]) for row in rows], 8),
        ([""] * len(rows), 32),
    ]
    head += b"".join(_text(cell, width) for cells, width in columns for cell in cells)
    with path.open("wb") as file:
        file.write(head)
        for second in range(seconds):
            for channel, step in zip(digital[:, second], steps, strict=True):
                file.write(channel[::step].tobytes())
            if plus:
                file.write(tals[second].ljust(2 * tal_samples, b"\0"))
    return path


def _text(value: str, width: int) -> bytes:
    return value.encode("latin-1").ljust(width)[:width]


def _tals(
    annotations: Sequence[tuple[float, float, str]],
    onsets: Sequence[float],
    seconds: int,
) -> list[bytes]:
    tals = [b"+%g\x14\x14\0" % onsets[second] for second in range(seconds)]
    for onset, duration, text in annotations:
        lasts = b"\x15%g" % duration if duration else b""
        tals[0] += b"+%g%s\x14%s\x14\0" % (onset, lasts, text.encode())
    return tals
