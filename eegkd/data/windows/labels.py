"""Labels of windows: by the events that cover them, and none where a bad span does."""

from collections.abc import Callable, Sequence

import numpy as np

from eegkd.data.corpora import UNLABELLED, not_asked
from eegkd.data.recordings.recording import Event, Recording
from eegkd.errors import InputError

Count = Callable[[Recording, Sequence[Event], np.ndarray, int], np.ndarray]


def label_windows(
    recording: Recording,
    starts: np.ndarray,
    length: int,
    classes: Sequence[str],
    background: str | None,
    positive_fraction: float,
    multilabel: bool,
    count: Count,
) -> np.ndarray:
    """Returns the labels of windows, as `cut_windows` describes them.

    Args:
        recording: Events.
        starts: First samples of the windows.
        length: Samples of a window.
        classes: Label names.
        background: The class of windows outside every event, or None.
        positive_fraction: Least share of a window, in (0, 1].
        multilabel: Give a row over the classes.
        count: Counts the samples of each window that some events cover.

    Raises:
        InputError: If the share is none, or a label is not in `classes`.
    """
    if not 0 < positive_fraction <= 1:
        raise InputError(
            f"--data.positive_fraction must be in (0, 1], got {positive_fraction}."
        )
    names = (UNLABELLED, *classes)
    if multilabel:
        names += tuple(map(not_asked, classes))
    found: dict[str, list[Event]] = {name: [] for name in names}
    for event in recording.events:
        if event.label not in found:
            raise InputError(
                f"{name_of(recording)}: event {event.label!r} at {event.onset_s:g} s "
                f"is none of the classes {', '.join(classes)}."
            )
        found[event.label].append(event)
    covers = (
        (index, count(recording, events, starts, length))
        for index, events in enumerate(found.values())
        if events
    )
    least, k = positive_fraction * length - 1e-9, len(classes)
    if multilabel:
        enough = np.zeros((len(names), len(starts)), bool)
        for index, covered in covers:
            enough[index] = covered >= least
        unknown = enough[0] | enough[k + 1 :]
        return np.where(enough[1 : k + 1], 1, np.where(unknown, -1, 0)).T.astype("i4")
    # One class after the other, and a tie goes to the later: no matrix of all classes.
    best, most = np.zeros((2, len(starts)), np.int64)
    for index, covered in covers:
        best = np.where(covered >= most, index, best)
        most = np.maximum(covered, most)
    other = -1 if background is None else list(classes).index(background)
    return np.where(most >= max(least, 1), best - 1, other).astype(np.int32)


def cover(
    recording: Recording, events: Sequence[Event], starts: np.ndarray, length: int
) -> np.ndarray:
    """Counts the samples of each window that lie in any of the events.

    Events that touch or overlap are joined, whatever their number, and looked up at the
    windows' edges.
    """
    spans = np.empty((len(events), 2), np.int64)
    for row, event in zip(spans, events, strict=True):
        first = max(0, round(event.onset_s * recording.rate))
        stop = round((event.onset_s + event.duration_s) * recording.rate)
        row[:] = first, max(first, stop)
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    stops = np.maximum.accumulate(spans[:, 1])
    heads = np.flatnonzero(np.append(True, spans[1:, 0] > stops[:-1]))
    begin, end = spans[heads, 0], stops[np.append(heads[1:], len(spans)) - 1]
    done = np.append(0, np.cumsum(end - begin))

    def before(samples: np.ndarray) -> np.ndarray:
        """Counts the samples in events that lie ahead of a sample."""
        num = np.searchsorted(begin, samples, "right")
        rest = np.maximum(end[np.maximum(num - 1, 0)] - samples, 0)
        return done[num] - np.where(num, rest, 0)

    return before(starts + length) - before(starts)


def own_cover(
    recording: Recording, events: Sequence[Event], starts: np.ndarray, length: int
) -> np.ndarray:
    """Counts the samples of each window in an event that begins with it."""
    inside = np.zeros(len(starts), np.int64)
    for event in events:
        first = round(event.onset_s * recording.rate)
        stop = round((event.onset_s + event.duration_s) * recording.rate)
        row = np.searchsorted(starts, first)
        if row < len(starts) and starts[row] == first:
            inside[row] = max(inside[row], min(stop - first, length))
    return inside


def name_of(recording: Recording) -> str:
    """Returns what a message calls a recording."""
    return recording.source or f"Recording of subject {recording.subject!r}"


def touched_windows(
    recording: Recording, starts: np.ndarray, length: int
) -> dict[str, np.ndarray]:
    """Finds the windows that share more than an edge with a bad span, by its reason.

    A span without duration (a splice) touches the windows that it lies inside.

    Returns:
        `bool[n]` for each reason that touches any.
    """
    touched: dict[str, np.ndarray] = {}
    for span in recording.bad_spans:
        # A float's last digits must not reach into the neighbouring window.
        first = round(span.onset_s * recording.rate, 3)
        stop = round((span.onset_s + span.duration_s) * recording.rate, 3)
        begin = np.searchsorted(starts, first - length, "right")
        end = np.searchsorted(starts, stop, "left")
        if begin < end:
            rows = touched.setdefault(span.reason, np.zeros(len(starts), bool))
            rows[begin:end] = True
    return touched
