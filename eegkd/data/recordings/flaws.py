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
    absolute deviations from its median. Stretches less than a second apart are one.

    Args:
        recording: Recording as read, not filtered.
        channels: Names of those channels that are in use.
    """
    wanted = set(channels)
    found = []
    for name, x in zip(recording.channels, recording.signal, strict=True):
        if name not in wanted:
            continue
        middle = float(np.median(x[:: max(1, len(x) // 1000)]))
        spread = float(np.median(np.abs(x[:: max(1, len(x) // 1000)] - middle)))
        for reason, runs in (
            (FLAT, _flat(x, recording.rate)),
            (CLIPPED, _clipped(x, recording.rate, middle, spread)),
        ):
            found += [
                Span(
                    onset_s=float(start / recording.rate),
                    duration_s=float((stop - start) / recording.rate),
                    reason=reason,
                    channels=(name,),
                )
                for start, stop in runs
            ]
    return tuple(found)


def _flat(x: Float[np.ndarray, " t"], rate: float) -> Int[np.ndarray, "n 2"]:
    """Finds runs of a second or longer in which next to nothing varies."""
    size = max(2, round(_BLOCK_S * rate))
    num = len(x) // size
    if not num:
        return np.zeros((0, 2), int)
    varies = np.ptp(x[: num * size].reshape(num, size), axis=1)
    still = varies <= _FLAT_SHARE * np.median(varies)
    most = float(varies[still].max(initial=0))
    runs = []
    for start, stop in _runs(still) * size:
        # A block was whole: on both sides go on for as long as its level holds.
        before, after = x[max(0, start - size) : start], x[stop : stop + size]
        moved = np.flatnonzero(np.abs(before - x[start]) > most)
        start -= len(before) - 1 - moved[-1] if len(moved) else len(before)
        moved = np.flatnonzero(np.abs(after - x[stop - 1]) > most)
        stop += moved[0] if len(moved) else len(after)
        if stop - start >= _FLAT_S * rate:
            runs.append((start, stop))
    return np.array(runs, int).reshape(-1, 2)


def _clipped(
    x: Float[np.ndarray, " t"], rate: float, middle: float, spread: float
) -> Int[np.ndarray, "n 2"]:
    """Finds runs at the highest or lowest number, near ones joined."""
    least = max(_CLIPPED_SAMPLES, round(_CLIPPED_S * rate))
    found = []
    for limit in (x.max(), x.min()):
        if abs(float(limit) - middle) < _CLIPPED_DEVIATIONS * spread:
            continue
        runs = _runs(x == limit)
        found.append(runs[runs[:, 1] - runs[:, 0] >= least])
    runs = np.concatenate([*found, np.zeros((0, 2), int)])
    runs = runs[np.argsort(runs[:, 0])]
    if not len(runs):
        return runs
    new = np.ones(len(runs), bool)
    new[1:] = runs[1:, 0] - runs[:-1, 1] >= _GAP_S * rate
    ends = np.append(np.flatnonzero(new)[1:], len(runs)) - 1
    return np.stack([runs[new, 0], runs[ends, 1]], axis=1)


def _runs(flags: Bool[np.ndarray, " n"]) -> Int[np.ndarray, "m 2"]:
    """Lists first and last-but-one positions of the runs of True."""
    edges = np.diff(flags.astype(np.int8), prepend=0, append=0)
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)
