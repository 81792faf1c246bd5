"""Scores of detected events by the SzCORE rules.

Spans are `[onset, end]` rows in seconds. Scoring is timescoring's, at 10 Hz for events
and 1 Hz for samples; times are handed over as exact tenths of a second, because gaps
and lengths that equal a limit would otherwise fall on either side of it by rounding.
"""

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real
from timescoring.annotations import Annotation
from timescoring.scoring import EventScoring, SampleScoring

RATE = 10
"""Samples per second of timelines and event scoring."""

Spans = Real[np.ndarray, "_ 2"]


class EventScores(NamedTuple):
    """Counts of hits and false alarms, and the scores that follow.

    Attributes:
        tp: Reference events (or samples) that were hit.
        fp: False alarms.
        num_ref: Reference events, long ones counted in pieces.
        seconds: Length of the scored recordings.
    """

    tp: int
    fp: int
    num_ref: int
    seconds: float

    @property
    def sensitivity(self) -> float:
        """`tp / num_ref`; NaN without a reference event."""
        return self.tp / self.num_ref if self.num_ref else float("nan")

    @property
    def precision(self) -> float:
        """`tp / (tp + fp)`; NaN without a detection."""
        found = self.tp + self.fp
        return self.tp / found if found else float("nan")

    @property
    def f1(self) -> float:
        """`2 tp / (tp + fp + num_ref)`; NaN with neither reference nor alarm."""
        total = self.fp + self.num_ref
        return 2 * self.tp / (self.tp + total) if total else float("nan")

    @property
    def fa_per_24h(self) -> float:
        """False alarms (or samples) in 24 hours of recording."""
        return self.fp * 86400 / self.seconds


def _annotation(spans: Spans, duration_s: float) -> Annotation:
    size = round(duration_s * RATE)
    tenths = np.clip(np.round(np.asarray(spans).reshape(-1, 2) * RATE), 0, size)
    exact = [
        (Fraction(int(a), RATE), Fraction(int(b), RATE)) for a, b in _union(tenths)
    ]
    return Annotation(exact, RATE, size)  # type: ignore[arg-type]


def _union(spans: Spans) -> Spans:
    """Joins spans that overlap or touch, in time order; empty ones are left out.

    timescoring ends a merged event where the one that starts last ends, even if that
    one lies inside another: it wants disjoint events.
    """
    spans = spans[spans[:, 0] < spans[:, 1]]
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(spans[:, 1])
    first = np.append(True, spans[1:, 0] > ends[:-1])[: len(spans)]
    last = np.append(first[1:], True)[: len(spans)]
    return np.stack([spans[first, 0], ends[last]], axis=1)


def score_events(
    truth: Spans,
    detected: Spans,
    duration_s: float,
    parameters: EventScoring.Parameters | None = None,
) -> EventScores:
    """Scores events of one recording: any overlap with the reference is a hit.

    By default with 30 s of tolerance before and 60 s after, events closer than 90 s
    merged, then cut at 5 minutes.

    Raises:
        ValueError: If the recording has no length.
    """
    if not round(duration_s * RATE) > 0:
        raise ValueError(f"duration_s must be at least 0.1 s; got {duration_s}.")
    found = EventScoring(
        _annotation(truth, duration_s),
        _annotation(detected, duration_s),
        parameters or EventScoring.Parameters(),
    )
    return EventScores(
        int(found.tp), int(found.fp), int(found.refTrue), found.numSamples / RATE
    )


def score_samples(truth: Spans, detected: Spans, duration_s: float) -> EventScores:
    """Scores seconds of one recording, without tolerance.

    Raises:
        ValueError: If the recording is shorter than a second.
    """
    if not round(duration_s) > 0:
        raise ValueError(f"duration_s must be at least 1 s; got {duration_s}.")
    found = SampleScoring(
        _annotation(truth, duration_s), _annotation(detected, duration_s)
    )
    return EventScores(
        int(found.tp), int(found.fp), int(found.refTrue), found.numSamples
    )


def pool(scores: Iterable[EventScores]) -> EventScores:
    """Sums the counts of several recordings."""
    tp, fp, num_ref, seconds = np.sum(list(scores), axis=0)
    return EventScores(int(tp), int(fp), int(num_ref), float(seconds))


def detection_latency(
    truth: Spans, detected: Spans, *, before_s: float = 30.0, after_s: float = 60.0
) -> Float[np.ndarray, " e"]:
    """Computes first alarm minus onset of every true event; NaN where it was missed.

    An alarm counts from where it enters the tolerance, so the lowest value is
    `-before_s`.

    Note:
        No causal device's latency: `eegkd` filters forwards and backwards, so that a
        change shows before it happens (`look_ahead_s`: 2.4 s at an edge of 0.5 Hz), the
        median over windows looks ahead, and a window is judged by all of its signal.
    """
    delays = np.full(len(truth), np.nan)
    for i, (onset, end) in enumerate(truth):
        hit = (detected[:, 0] < end + after_s) & (detected[:, 1] > onset - before_s)
        if hit.any():
            delays[i] = max(detected[hit, 0].min() - onset, -before_s)
    return delays
