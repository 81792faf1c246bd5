"""Evidence of a finished run, and the assays that judge it.

An `Assay` judges one aspect: it reads the `Evidence`, returns its part of summary.json,
and writes its section of the report.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.evaluate.events import EventsConfig
from eegkd.evaluate.predictions import Predictions
from eegkd.evaluate.tasks import Task, task_of

T = TypeVar("T")
Folds = Mapping[str, Mapping[int, Sequence[Predictions]]]
"""Row -> seed -> one set of predictions per fold."""
Measures = Mapping[str, Mapping[str, Any]]
"""By name: `mean`, and `by_class`, where a class without windows is None."""


class Cost(NamedTuple):
    """Size of a model.

    Attributes:
        parameters: Parameters that prediction reads.
        head: Those in a head; 0 where the model has no separate one.
    """

    parameters: int
    head: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Results of a run's trainings.

    Attributes:
        test: Predictions of test windows.
        val: Predictions of validation windows, of the same rows.
        store: Windows.
        fold: The fold whose models `embed` and `call` use.
        log: Lines of metrics.jsonl.
        measured: Measurements of each training of each row, besides predictions.
        groups: Names of measures that are shown as one: by the name of their group.
        costs: Sizes of the models that were trained.
        embed: Row -> the pooled embedding of the fold's test windows, f32[n, d], or
            None where it has none; of "linear", the band power of every channel.
        call: `(row, size)` -> a call that predicts `size` windows, and waits; None for
            what does not take windows alone.
        title: The headline of the report.
        split: How the folds were made, in words.
        leaks: True if windows of one subject are on both sides of the split.
        seed: Seed of the run.
        events: From window probabilities to events.
        columns: Channels that the student sees; () is all.
        notes: Sentences that the reader must not miss.
        registered: Rows that the student must all beat; None: those of
            `rows.REGISTERED` that are there.
        left_out: Why rows were not trained, by row.
        record: Record of the run, which summary.json repeats.
    """

    test: Folds
    val: Folds
    store: WindowStore
    fold: Fold
    log: Sequence[Mapping[str, Any]] = ()
    measured: Mapping[str, Sequence[Measures]] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    costs: Mapping[str, Cost] = dataclasses.field(default_factory=dict)
    embed: Callable[[str], np.ndarray | None] = lambda row: None
    call: Callable[[str, int], Callable[[], Any] | None] = lambda row, size: None
    title: str = ""
    split: str = ""
    leaks: bool = False
    seed: int = 0
    events: EventsConfig = EventsConfig()
    columns: tuple[int, ...] = ()
    notes: Sequence[str] = ()
    registered: Sequence[str] | None = None
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _known: dict[Any, Any] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Manifest of the store."""
        return self.store.manifest

    @property
    def task(self) -> Task:
        """Task of the corpus."""
        return self.once(_task)

    @property
    def bayes(self) -> Mapping[str, float]:
        """The best possible value of metrics, where it is known."""
        return self.manifest.get("bayes") or {}

    def windows(self, rows: np.ndarray) -> np.ndarray:
        """Reads windows of the store, f32[n, c, t]."""
        return np.asarray(self.store.signal[rows])

    def once(self, compute: Callable[["Evidence"], T]) -> T:
        """Returns `compute(self)`, which several assays may ask for, computed once."""
        if compute not in self._known:
            self._known[compute] = compute(self)
        return self._known[compute]


def _task(evidence: Evidence) -> Task:
    return task_of(evidence.manifest)


def always(evidence: Evidence) -> bool:
    """Applies to every run."""
    del evidence
    return True


def of_classes(evidence: Evidence) -> bool:
    """Returns True if models predict the probabilities of a window's classes."""
    return evidence.task.kind in ("binary", "classes", "labels")


def of_labels(evidence: Evidence) -> bool:
    """Returns True if a window may have several of these classes."""
    return evidence.task.kind == "labels"


def no_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Adds nothing to results.json."""
    del evidence
    return []


class Assay(NamedTuple):
    """One aspect that is judged.

    Attributes:
        name: Key in summary.json.
        applies: `evidence -> bool`: True if it judges such a run; else its value is {},
            which `section` also receives.
        run: Result, as JSON holds it; None adds no key to summary.json.
        section: `(what run returned, evidence)` -> its part of the report, as HTML made
            by `report.parts`; "" where there is nothing to show.
        rows: Rows that it adds to results.json.
    """

    name: str
    applies: Callable[[Evidence], bool]
    run: Callable[[Evidence], Any]
    section: Callable[[Any, Evidence], str]
    rows: Callable[[Evidence], list[dict[str, Any]]] = no_rows
