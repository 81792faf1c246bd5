"""Stretches in which a channel holds no signal, found before any filter.

A band-pass rings into a dead stretch, and a z-score makes of that a signal of full
size: what is flat has to be seen in the numbers as they were recorded.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int

from eegkd.data.recordings.recording import Recording, Span

FLAT = "flat signal"
CLIPPED = "clipped signal"
_BLOCK_S = 0.25
_FLAT_S = 1.0
_FLAT_SHARE = 0.005
_CLIPPED_S = 0.05
_CLIPPED_SAMPLES = 5
_CLIPPED_DEVIATIONS = 3.0
_GAP_S = 1.0


def find_flaws(recording: Recording, channels: Iterable[str]) -> tuple[Span, ...]:
    """Finds stretches in which a channel is flat or clipped.

    Flat: for a second or longer the channel varies, in any quarter of a second, by no
    more than 0.5 % of what it varies in the median quarter, so that the last digit's
    noise of a dead amplifier is no signal, and the drift of an electrode does not make
    one flat. Such a stretch is found in blocks of a quarter of a second, and followed
    from them to the sample.

    Clipped: the channel stays at its highest or at its lowest number for 50
    milliseconds, and 5 samples, or longer, and that number lies at least three median
    absolute deviations from its median. Stretches at one of the two that are less than
    a second apart are one.

    Args:
        recording: Recording as read, not filtered.
        channels: Names of those channels that are in use.
    """
    size = max(2, round(_BLOCK_S * recording.rate))
    num = recording.signal.shape[1] // size
    if not num:
        return ()
    inside = np.isin(recording.channels, list(channels))
    blocks = recording.signal[:, : num * size].reshape(-1, num, size)
    high, low = blocks.max(axis=2), blocks.min(axis=2)
    varies = high - low
    still = varies <= _FLAT_SHARE * np.median(varies, axis=1, keepdims=True)
    found = []
    for row in np.flatnonzero(inside & still.any(axis=1)):
        x, most = recording.signal[row], varies[row][still[row]].max()
        found += [(row, FLAT, _flat(x, _runs(still[row]) * size, size, most))]
    rest = recording.signal[:, num * size :]
    least = max(_CLIPPED_SAMPLES, round(_CLIPPED_S * recording.rate))
    for of_block, limit in (
        (high, np.maximum(high.max(axis=1), rest.max(axis=1, initial=-np.inf))),
        (low, np.minimum(low.min(axis=1), rest.min(axis=1, initial=np.inf))),
    ):
        # A run that is long enough fills half of that in one block, or in the rest.
        most = np.count_nonzero(rest == limit[:, None], axis=1)
        rows, places = np.nonzero(of_block == limit[:, None])
        counts = np.count_nonzero(blocks[rows, places] == limit[rows, None], axis=1)
        np.maximum.at(most, rows, counts)
        for row in np.flatnonzero(inside & (2 * most >= least)):
            runs = _clipped(recording.signal[row], limit[row], least)
            found += [(row, CLIPPED, _joined(runs, _GAP_S * recording.rate))]
    return tuple(
        Span(
            onset_s=float(start / recording.rate),
            duration_s=float((stop - start) / recording.rate),
            reason=reason,
            channels=(recording.channels[row],),
        )
        for row, reason, runs in found
        for start, stop in runs
        if reason == CLIPPED or stop - start >= _FLAT_S * recording.rate
    )


def _flat(
    x: Float[np.ndarray, " t"], runs: Int[np.ndarray, "n 2"], size: int, most: float
) -> Int[np.ndarray, "n 2"]:
    """Widens runs of flat blocks, sample by sample, while the level holds."""
    out = runs.copy()
    for run, (start, stop) in zip(out, runs, strict=True):
        before, after = x[max(0, start - size) : start], x[stop : stop + size]
        moved = np.flatnonzero(np.abs(before - x[start]) > most)
        run[0] -= len(before) - 1 - moved[-1] if len(moved) else len(before)
        moved = np.flatnonzero(np.abs(after - x[stop - 1]) > most)
        run[1] += moved[0] if len(moved) else len(after)
    return out


def _clipped(
    x: Float[np.ndarray, " t"], limit: float, least: int
) -> Int[np.ndarray, "n 2"]:
    """Finds runs of `least` samples at a limit that is far from the median."""
    some = x[:: max(1, len(x) // 1000)]
    middle = np.median(some)
    if abs(limit - middle) < _CLIPPED_DEVIATIONS * np.median(np.abs(some - middle)):
        return np.zeros((0, 2), int)
    runs = _runs(x == limit)
    return runs[runs[:, 1] - runs[:, 0] >= least]


def _joined(runs: Int[np.ndarray, "n 2"], gap: float) -> Int[np.ndarray, "m 2"]:
    """Joins runs that are less than a gap apart."""
    new = np.append(True, runs[1:, 0] - runs[:-1, 1] >= gap)[: len(runs)]
    ends = np.append(np.flatnonzero(new)[1:], len(runs)) - 1
    return np.stack([runs[new, 0], runs[ends[: new.sum()], 1]], axis=1)


def _runs(flags: Bool[np.ndarray, " n"]) -> Int[np.ndarray, "m 2"]:
    """Lists the runs of True: the first position, and the one after the last."""
    edges = np.diff(flags.astype(np.int8), prepend=0, append=0)
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)
