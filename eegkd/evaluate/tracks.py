"""Window probabilities of whole recordings, and the events detected in them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eegkd.evaluate import events
from eegkd.evaluate.events import Detection, EventsConfig, WindowTrack
from eegkd.evaluate.predictions import Predictions


@dataclasses.dataclass(frozen=True)
class Events:
    """Detections of one model on every test recording."""

    tracks: list[WindowTrack]
    detections: list[Sequence[Detection]]
    recordings: list[str]
    thresholds: list[float]


def event_classes(manifest: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the classes that are events: all but the background, if there is one.

    Where a window has several labels there is no background, and nothing is an event.
    """
    background = manifest.get("background")
    if background is None or manifest.get("multilabel"):
        return ()
    return tuple(i for i, name in enumerate(manifest["classes"]) if name != background)


def tracks_of(
    predictions: Predictions, manifest: Mapping[str, Any]
) -> list[WindowTrack]:
    """Groups predictions into one time-ordered track per recording."""
    classes = event_classes(manifest)
    names = {manifest["classes"][i] for i in classes}
    recordings = manifest["recordings"]
    truths = {
        key: np.array(
            [
                (event["onset_s"], event["onset_s"] + event["duration_s"])
                for event in info["events"]
                if event["label"] in names
            ]
        ).reshape(-1, 2)
        for key, info in recordings.items()
    }
    return events.window_tracks(
        predictions,
        window_s=manifest["window_s"],
        durations={key: info["duration_s"] for key, info in recordings.items()},
        truths=truths,
        event_classes=classes,
    )


def detect_events(
    test: Sequence[Predictions],
    val: Sequence[Predictions],
    manifest: Mapping[str, Any],
    config: EventsConfig,
) -> Events:
    """Detects events of one model, with a threshold fitted on each fold's validation.

    Args:
        test: Predictions of each fold's test windows.
        val: Predictions of each fold's validation windows.
        manifest: Manifest of the store.
        config: Options; a threshold that they state is not fitted.
    """
    found = Events([], [], [], [])
    for p, q in zip(test, val, strict=True):
        threshold = config.threshold
        if threshold is None:
            threshold = events.fit_threshold(tracks_of(q, manifest), config)
        tracks = tracks_of(p, manifest)
        found.tracks.extend(tracks)
        found.detections.extend(events.detect(t, threshold, config) for t in tracks)
        found.recordings.extend(np.unique(p.recording).tolist())
        found.thresholds.extend([threshold] * len(tracks))
    return found
