"""Writes small GDF 1.25 files, the version of BCI Competition IV's data set 2a."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

INT16 = 3


def write_gdf(
    path: Path,
    signal: np.ndarray,
    labels: Sequence[str],
    events: Sequence[tuple[int, int, int]],
    *,
    rate: int = 250,
    physical_max: float = 100.0,
) -> Path:
    """Writes `signal [c, t]` in microvolts, a record a sample, and an event table.

    `events` are (first sample, type, samples); NaN becomes the lowest number there is.
    """
    num_channels, num_samples = signal.shape
    digital = np.round(np.nan_to_num(signal / physical_max * 32767))
    digital = np.where(np.isnan(signal), -32768, np.clip(digital, -32767, 32767))
    parts = [
        b"GDF 1.25",
        b"X X".ljust(80),
        b"X".ljust(80),
        b"2008010112000000",
        np.array([256 * (num_channels + 1)], "<i8").tobytes(),
        bytes(24),
        bytes(20),
        np.array([num_samples], "<i8").tobytes(),
        np.array([1, rate], "<u4").tobytes(),
        np.array([num_channels], "<u4").tobytes(),
        b"".join(label.encode().ljust(16) for label in labels),
        bytes(80 * num_channels),
        b"uV".ljust(8) * num_channels,
        np.full(num_channels, -physical_max * 32768 / 32767, "<f8").tobytes(),
        np.full(num_channels, physical_max, "<f8").tobytes(),
        np.full(num_channels, -32768, "<i8").tobytes(),
        np.full(num_channels, 32767, "<i8").tobytes(),
        b"".ljust(80) * num_channels,
        np.ones(num_channels, "<i4").tobytes(),
        np.full(num_channels, INT16, "<i4").tobytes(),
        bytes(32 * num_channels),
        digital.T.astype("<i2").tobytes(),
    ]
    position, kind, length = np.array(events).reshape(-1, 3).T
    parts += [
        bytes([3]),
        np.array([rate], "<u4").tobytes()[:3],
        np.array([len(events)], "<u4").tobytes(),
        (position + 1).astype("<u4").tobytes(),  # counted from 1
        kind.astype("<u2").tobytes(),
        np.zeros(len(events), "<u2").tobytes(),
        length.astype("<u4").tobytes(),
    ]
    path.write_bytes(b"".join(parts))
    return path
