"""What a report shows, as plain arrays and words."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from eegkd.evaluate.events import Detection, OperatingPoint, WindowTrack
from eegkd.evaluate.identity import Identity
from eegkd.evaluate.measured import Measured, Routing
from eegkd.evaluate.plots import Curve
from eegkd.evaluate.predictions import Predictions
from eegkd.evaluate.statistics import Summary

MODELS = {
    "teacher": "the large model itself: head room",
    "student": "the distilled model; its verdict is against no_teacher",
    "no_teacher": "the same student on hard labels: what the teacher adds",
    "alpha_0": "the teacher's start and class vectors, no distillation loss",
    "shuffled_teacher": "teacher outputs permuted over the samples: should hurt",
    "within_class_shuffle": "teacher outputs permuted within a class",
    "class_mean_teacher": "teacher outputs replaced by the class mean",
    "random_class_vectors": "random vectors in place of text: what language adds",
    "small_net": "a tuned small network: is distillation needed at all",
    "linear": "band power and a linear classifier: the floor",
}
"""Rows of the results table in order, and what each is for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Size and speed of a model; None where it was not measured.

    Attributes:
        parameters: All that prediction takes.
        head: Those of them in a head; 0 where the model has none apart.
        windows_per_s: In large batches.
        latency_ms: Of a single window.
    """

    parameters: int | None = None
    head: int = 0
    windows_per_s: float | None = None
    latency_ms: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A recording with what the student found in it."""

    signal: Float[np.ndarray, "c t"]
    channels: Sequence[str]
    rate: float
    track: WindowTrack
    detections: Sequence[Detection]
    threshold: float
    smooth: int = 3
    title: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What a report shows; sections without content are left out.

    Attributes:
        title: Headline.
        corpus: Name of the corpus.
        split: How the folds were made, in words.
        leaks_subjects: A subject's windows are on both sides of the split.
        has_subjects: The corpus tells its subjects; else folds are the units.
        seed: The run's seed.
        class_names: In the order of the probabilities.
        metrics: The metrics of the table, the primary one first.
        summary: Rows and comparisons from `statistics.summarise`.
        facts: Parameters and speed by model.
        curves: Runs by model, for teacher, student and no_teacher.
        selection_metric: What validation measured.
        predictions: Test predictions by model, for confusion and reliability.
        calibrated: The same after temperature.
        temperatures: The temperature by model.
        example: A recording with detections.
        event_results: `events.szcore_results` by model.
        operating: `events.operating_curve` on the test recordings, by model.
        bayes: The best possible value of a metric, by its name.
        agreement: `agreement.agreement_rows`: models against the teacher.
        identity: Subject-identity probe of embeddings, by what was embedded.
        measured: What was measured beside predictions, by model and name.
        routing: The weights of a teacher's layers, by model.
        details: More facts for the head, as words.
        notes: Sentences the reader must not miss.
        config: The run's configuration.
    """

    title: str
    corpus: str
    split: str
    leaks_subjects: bool
    has_subjects: bool
    seed: int
    class_names: Sequence[str]
    metrics: Sequence[str]
    summary: Summary
    facts: Mapping[str, ModelFacts] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Sequence[Curve]] = dataclasses.field(default_factory=dict)
    selection_metric: str = "accuracy"
    predictions: Mapping[str, Predictions] = dataclasses.field(default_factory=dict)
    calibrated: Mapping[str, Predictions] = dataclasses.field(default_factory=dict)
    temperatures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    example: Example | None = None
    event_results: Mapping[str, Mapping[str, Mapping[str, float | None]]] = (
        dataclasses.field(default_factory=dict)
    )
    operating: Mapping[str, Sequence[OperatingPoint]] = dataclasses.field(
        default_factory=dict
    )
    bayes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    agreement: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    identity: Mapping[str, Identity] = dataclasses.field(default_factory=dict)
    measured: Mapping[str, Mapping[str, Measured]] = dataclasses.field(
        default_factory=dict
    )
    routing: Mapping[str, Routing] = dataclasses.field(default_factory=dict)
    details: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
