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
    for event in recording.events:
        if event.label not in names:
            raise InputError(
                f"{name_of(recording)}: event {event.label!r} at {event.onset_s:g} s "
                f"is none of the classes {', '.join(classes)}."
            )
    cover = np.zeros((len(names), len(starts)), np.int64)
    for index, name in enumerate(names):
        events = [event for event in recording.events if event.label == name]
        if events:
            cover[index] = count(recording, events, starts, length)
    if multilabel:
        k = len(classes)
        enough = cover >= positive_fraction * length - 1e-9
        unknown = enough[0] | enough[k + 1 :]
        return np.where(enough[1 : k + 1], 1, np.where(unknown, -1, 0)).T.astype("i4")
    # The last maximum, so that a tie goes to the later class.
    best = len(names) - 1 - np.argmax(cover[::-1], axis=0)
    enough = cover[best, np.arange(len(starts))] >= positive_fraction * length - 1e-9
    other = -1 if background is None else list(classes).index(background)
    return np.where(enough, best - 1, other).astype(np.int32)


def cover(
    recording: Recording, events: Sequence[Event], starts: np.ndarray, length: int
) -> np.ndarray:
    """Counts the samples of each window that lie in any of the events."""
    inside = np.zeros(recording.signal.shape[1] + 1, np.int64)
    for event in events:
        first = max(0, round(event.onset_s * recording.rate))
        stop = round((event.onset_s + event.duration_s) * recording.rate)
        inside[1:][first : max(first, stop)] = 1
    total = np.cumsum(inside)
    return total[starts + length] - total[starts]


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
