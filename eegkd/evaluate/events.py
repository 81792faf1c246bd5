"""From window probabilities to events, and the threshold that makes them."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from eegkd.evaluate.predictions import Predictions
from eegkd.evaluate.scoring import (
    RATE,
    EventScores,
    Spans,
    pool,
    score_events,
    score_samples,
)

THRESHOLDS = tuple(i / 20 for i in range(1, 20))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventsConfig:
    """Options of the conversion from probabilities to events.

    Attributes:
        threshold: Least probability of an event; None fits it on the validation
            subjects.
        smooth: Windows of the running median over time, an odd number.
        min_duration_s: Shorter detections are dropped.
    """

    threshold: float | None = None
    smooth: int = 3
    min_duration_s: float = 10.0

    def __post_init__(self) -> None:
        """Checks the options."""
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise ValueError(f"smooth must be odd and positive; got {self.smooth}.")
        if self.min_duration_s < 0:
            raise ValueError(f"min_duration_s must be >= 0; got {self.min_duration_s}.")


class Detection(NamedTuple):
    """A detected event; confidence is the mean smoothed probability in it."""

    onset_s: float
    duration_s: float
    confidence: float = float("nan")
    label: str = "sz"


class WindowTrack(NamedTuple):
    """One recording's windows with the probability of an event, and the truth.

    Attributes:
        start_s: Starts of windows, ascending; they may overlap or leave gaps.
        prob: Probability of an event in each window.
        window_s: Length of a window.
        duration_s: Length of the recording.
        truth: True events.
        subject: The unit of per-subject means.
    """

    start_s: Float[np.ndarray, " n"]
    prob: Float[np.ndarray, " n"]
    window_s: float
    duration_s: float
    truth: Spans
    subject: str = ""


def to_spans(detections: Iterable[Detection]) -> Spans:
    """Returns the onsets and ends of detections."""
    rows = [(d.onset_s, d.onset_s + d.duration_s) for d in detections]
    return np.array(rows, np.float64).reshape(-1, 2)


def mask_to_spans(mask: Bool[np.ndarray, " t"], *, rate: float = RATE) -> Spans:
    """Finds the stretches of True in a mask."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return np.stack([starts, ends], axis=1) / rate


def timeline(track: WindowTrack, *, smooth: int = 1) -> Float[np.ndarray, " t"]:
    """Spreads window probabilities over time, at 10 Hz.

    A running median over `smooth` windows comes first, by time: at a gap, as at the
    ends, the outermost window is repeated. Where windows overlap their mean is taken;
    where none lies the value is NaN, which is never an event.

    Raises:
        ValueError: If the windows are not in time order.
    """
    if np.any(np.diff(track.start_s) < 0):
        raise ValueError("Windows must be in time order.")
    prob = np.asarray(track.prob, np.float64)
    if smooth > 1 and len(prob):
        start = np.asarray(track.start_s, np.float64)
        near = _neighbours(start, track.window_s, smooth // 2)
        prob = np.median(prob[near], axis=0)
    size = round(track.duration_s * RATE)
    start = np.clip(np.round(track.start_s * RATE).astype(int), 0, size)
    end = np.clip(start + round(track.window_s * RATE), 0, size)
    steps = np.zeros((2, size + 1))  # probability and count, as differences
    for sign, where in ((1, start), (-1, end)):
        np.add.at(steps[0], where, sign * prob)
        np.add.at(steps[1], where, sign)
    total, count = steps.cumsum(axis=1)[:, :size]
    covered = np.round(count) > 0
    return np.divide(total, count, out=np.full(size, np.nan), where=covered)


def _neighbours(
    start: Float[np.ndarray, " n"], window_s: float, reach: int
) -> Int[np.ndarray, "m n"]:
    """Finds each window and those up to `reach` hops before and after it.

    The hop is the usual distance of starts, at most a window's length. Where there is
    no window to half a hop, the last one on the way there stands in for it.
    """
    hop = min(np.median(np.diff(start)), window_s) if len(start) > 1 else window_s
    midpoints = (start[1:] + start[:-1]) / 2
    found = [np.arange(len(start))]
    for way in (-1, 1):
        last = found[0]
        for step in range(1, reach + 1):
            wanted = start + way * step * hop
            nearest = np.searchsorted(midpoints, wanted)
            last = np.where(np.abs(start[nearest] - wanted) < hop / 2, nearest, last)
            found.append(last)
    return np.stack(found)


def _to_detections(
    line: Float[np.ndarray, " t"], threshold: float, min_duration_s: float
) -> tuple[Detection, ...]:
    # Sums of probabilities carry rounding of about 1e-16 per step.
    spans = mask_to_spans(np.nan_to_num(line, nan=-1.0) >= threshold - 1e-9)
    found = []
    for onset, end in spans[np.diff(spans)[:, 0] >= min_duration_s - 1e-9]:
        inside = line[round(onset * RATE) : round(end * RATE)]
        found.append(Detection(onset, round(end - onset, 3), float(inside.mean())))
    return tuple(found)


def detect(
    track: WindowTrack, threshold: float, config: EventsConfig | None = None
) -> tuple[Detection, ...]:
    """Detects events in window probabilities; `config.threshold` is not read."""
    config = config or EventsConfig()
    line = timeline(track, smooth=config.smooth)
    return _to_detections(line, threshold, config.min_duration_s)


def window_tracks(
    predictions: Predictions,
    *,
    window_s: float,
    durations: Mapping[str, float],
    truths: Mapping[str, ArrayLike],
    event_classes: Sequence[int] = (1,),
) -> list[WindowTrack]:
    """Splits predictions into recordings, in time order.

    Args:
        predictions: Labels are not read: unlabelled windows belong to the timeline.
        window_s: Length of a window.
        durations: Length of every recording in seconds.
        truths: True events of recordings that have any.
        event_classes: Classes that count as an event; probabilities are added.
    """
    tracks = []
    prob = predictions.prob[:, list(event_classes)].sum(axis=1)
    for name in np.unique(predictions.recording):
        rows = np.flatnonzero(predictions.recording == name)
        rows = rows[np.argsort(predictions.start_s[rows], kind="stable")]
        tracks.append(
            WindowTrack(
                predictions.start_s[rows],
                prob[rows],
                window_s,
                durations[str(name)],
                np.asarray(truths.get(str(name), np.zeros((0, 2)))).reshape(-1, 2),
                str(predictions.subject[rows[0]]),
            )
        )
    return tracks


class OperatingPoint(NamedTuple):
    """Scores at one threshold, all recordings pooled."""

    threshold: float
    scores: EventScores


def operating_curve(
    tracks: Sequence[WindowTrack],
    config: EventsConfig | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[OperatingPoint]:
    """Scores every threshold: the curve of sensitivity v false alarms in 24 h."""
    config = config or EventsConfig()
    lines = [timeline(track, smooth=config.smooth) for track in tracks]
    points = []
    for threshold in thresholds:
        scores = []
        for track, line in zip(tracks, lines, strict=True):
            found = to_spans(_to_detections(line, threshold, config.min_duration_s))
            scores.append(score_events(track.truth, found, track.duration_s))
        points.append(OperatingPoint(threshold, pool(scores)))
    return points


def fit_threshold(
    tracks: Sequence[WindowTrack],
    config: EventsConfig | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> float:
    """Finds the threshold with the best event F1, on validation recordings.

    Ties go to fewer false alarms, then to the threshold nearest 0.5. Without a true
    event the F1 is 1 for silence and 0 for any alarm.

    Raises:
        ValueError: If there is no recording.
    """
    if not tracks:
        raise ValueError("No validation recording to fit the event threshold on.")

    def merit(point: OperatingPoint) -> tuple[float, int, float]:
        f1 = 1.0 if np.isnan(point.scores.f1) else point.scores.f1
        return f1, -point.scores.fp, -abs(point.threshold - 0.5)

    return max(
        operating_curve(tracks, config, thresholds=thresholds), key=merit
    ).threshold


def szcore_results(
    tracks: Sequence[WindowTrack], detections: Sequence[Sequence[Detection]]
) -> dict[str, dict[str, float | None]]:
    """Returns sample and event results as szcore-evaluation does.

    Counts are pooled over a subject's recordings; then mean and `_std` over the
    subjects where a score is defined, None where it is nowhere.
    """
    results: dict[str, dict[str, float | None]] = {}
    scorers = {"sample_results": score_samples, "event_results": score_events}
    for key, scorer in scorers.items():
        by_subject: dict[str, list[EventScores]] = {}
        for track, found in zip(tracks, detections, strict=True):
            scores = scorer(track.truth, to_spans(found), track.duration_s)
            by_subject.setdefault(track.subject, []).append(scores)
        pooled = [pool(scores) for scores in by_subject.values()]
        columns = {
            "sensitivity": [s.sensitivity for s in pooled],
            "precision": [s.precision for s in pooled],
            "f1": [s.f1 for s in pooled],
            "fpRate": [s.fa_per_24h for s in pooled],
        }
        results[key] = {}
        for name, values in columns.items():
            defined = np.array(values)[np.isfinite(values)]
            results[key][name] = float(defined.mean()) if len(defined) else None
            results[key][f"{name}_std"] = float(defined.std()) if len(defined) else None
    return results
