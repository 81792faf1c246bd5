"""Events by the SzCORE rules, and one recording with those that the student found."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from eegkd.data.recordings.filtering import look_ahead_s
from eegkd.data.windows.store import WindowStore
from eegkd.evaluate.events import Detection, WindowTrack, szcore_results
from eegkd.evaluate.evidence import Assay, Evidence, always
from eegkd.evaluate.report.figure import to_png
from eegkd.evaluate.report.parts import (
    Html,
    join,
    note,
    number,
    picture,
    section,
    table,
)
from eegkd.evaluate.report.recording import recording_figure
from eegkd.evaluate.rows import in_order
from eegkd.evaluate.tracks import Events, detect_events, event_classes

NOTE = (
    "SzCORE rules, mean over subjects: 30 s of tolerance before and 60 s after, events "
    "closer than 90 s merged, cut at 5 minutes. For samples the last column counts "
    "seconds."
)
CAPTION = (
    "Below, the student's probability of an event, smoothed (black) and raw (grey), "
    "with the threshold fitted on validation subjects."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleRecording:
    """A recording with the student's detections."""

    signal: Float[np.ndarray, "c t"]
    channels: Sequence[str]
    rate: float
    track: WindowTrack
    detections: Sequence[Detection]
    threshold: float
    smooth: int = 3
    title: str = ""


def example_of(
    found: Events, store: WindowStore, smooth: int, columns: Sequence[int] = ()
) -> ExampleRecording:
    """Returns the first test recording that has an event, else the first.

    Args:
        found: Events of the student.
        store: Windows.
        smooth: Windows that probabilities are smoothed over.
        columns: Channels that the student sees; () is all.
    """
    with_event = [i for i, track in enumerate(found.tracks) if len(track.truth)]
    i = with_event[0] if with_event else 0
    name = found.recordings[i]
    rows = store.recording_rows(name, on_grid=True)
    names = store.manifest["channels"]
    shown = list(columns or range(len(names)))
    windows = np.asarray(store.signal[rows])[:, shown]
    return ExampleRecording(
        signal=np.concatenate(list(windows), axis=1),
        channels=[names[i] for i in shown],
        rate=store.manifest["rate"],
        track=found.tracks[i],
        detections=found.detections[i],
        threshold=found.thresholds[i],
        smooth=smooth,
        title=name,
    )


def _of_student(evidence: Evidence) -> Events:
    test, val = evidence.test["student"][0], evidence.val["student"][0]
    return detect_events(test, val, evidence.manifest, evidence.events)


def _run(evidence: Evidence) -> Mapping[str, Any]:
    if not event_classes(evidence.manifest):
        return {}
    found = evidence.once(_of_student)
    return {"student": szcore_results(found.tracks, found.detections)}


def _section(result: Mapping[str, Any], evidence: Evidence) -> Html:
    if not result:
        return ""
    body = []
    for name in in_order(result):
        for kind, digits in (("event_results", 2), ("sample_results", 0)):
            found = result[name][kind]
            scores = [number(found[key]) for key in ("sensitivity", "precision", "f1")]
            alarms = number(found["fpRate"], digits)
            body.append((name, kind.removesuffix("_results"), *scores, alarms))
    head = ("model", "scored by", "sensitivity", "precision", "F1")
    head += ("false alarms / 24 h",)
    scores = section(
        "Events",
        table(head, body, text_columns=(0, 1)),
        note(NOTE),
        note(_ahead(evidence)),
    )
    return join((scores, _example(evidence)))


def _ahead(evidence: Evidence) -> str:
    """Says that detections know what comes after them."""
    manifest = evidence.manifest
    done = manifest.get("preprocessing", {})
    ahead = look_ahead_s(
        done.get("band"), done.get("filter_order", 4), manifest["rate"]
    )
    filtered = (
        "the band-pass runs forwards and backwards (a hundredth of a step shows "
        f"{ahead:.1f} s before it), "
    )
    return (
        "Detections know some of what comes after them, so a latency, or an alarm "
        f"before an onset, is no causal device's: {filtered if ahead else ''}the "
        "median over windows looks ahead, and a window counts from its first sample."
    )


def _example(evidence: Evidence) -> Html:
    found = evidence.once(_of_student)
    smooth = evidence.events.smooth
    shown = example_of(found, evidence.store, smooth, evidence.columns)
    drawn = recording_figure(
        shown.signal,
        shown.channels,
        shown.rate,
        shown.track,
        shown.detections,
        threshold=shown.threshold,
        smooth=shown.smooth,
        title=shown.title,
    )
    alt = "Traces, true and detected events"
    return section("An example recording", picture(to_png(drawn), alt, CAPTION))


ASSAY = Assay(name="events", applies=always, run=_run, section=_section)
