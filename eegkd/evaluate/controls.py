"""Controls: what else could explain a student's gain.

Some are functions from System to System, the others from a teacher's outputs to
outputs; neither changes data order, updates or budget.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from eegkd.evaluate.metrics import above_half, most_probable
from eegkd.evaluate.multilabel import label_groups
from eegkd.losses import Term
from eegkd.systems import Stage, System, replace_stage

Arrays = Mapping[str, np.ndarray]
"""The teacher's tensors by name, one row per window of the store."""


def _reads_upstream(stage: Stage, term: Term) -> bool:
    own = (f"{stage.name}.", "batch.")
    return any(
        name in stage.borrowed or not name.startswith(own) for name in term.inputs
    )


def _shares(stage: Stage) -> dict[str, float]:
    """Returns the weights of terms on the student's own outputs, summing to one."""
    own = _alone(stage, stage.terms)
    if not own or any(callable(term.weight) for term in own):
        raise ValueError(
            f"Stage {stage.name!r} needs terms of constant weight on its own outputs."
        )
    total = sum(float(term.weight) for term in own)  # type: ignore[arg-type]
    if not total > 0:
        raise ValueError(f"The own terms of stage {stage.name!r} weigh {total}.")
    return {term.name: float(term.weight) / total for term in own}  # type: ignore[arg-type]


def _alone(stage: Stage, terms: tuple[Term, ...]) -> tuple[Term, ...]:
    return tuple(term for term in terms if not _reads_upstream(stage, term))


def alpha_0(system: System) -> System:
    """Sets the distillation terms to zero; the own terms' weights sum to one.

    Initialisation and class vectors stay the teacher's. Functions are those of
    `system`, so a compiled step that takes weights as inputs serves both.
    """
    stage = system.stages[-1]
    weights = _shares(stage)
    terms = tuple(t._replace(weight=weights.get(t.name, 0.0)) for t in stage.terms)
    return replace_stage(system, stage._replace(terms=terms))


def without_teacher(system: System) -> System:
    """Drops everything that comes from earlier stages: terms, needs, initialisation."""
    stage = system.stages[-1]
    weights = _shares(stage)
    terms = tuple(
        term._replace(weight=weights[term.name])
        for term in stage.terms
        if term.name in weights
    )
    alone = stage._replace(
        init=lambda key, batch, upstream, *loaded: stage.init(key, batch, {}, *loaded),
        terms=terms,
        needs=(),
        probes=tuple(p for p in stage.probes if not _reads_upstream(stage, p.term)),
    )
    return replace_stage(system, alone)


def class_groups(
    labels: np.ndarray, rows: np.ndarray, unknown: np.ndarray, prob: np.ndarray
) -> Int64[np.ndarray, " n"]:
    """Numbers the class of each of some windows; the teacher's where it is unknown.

    Of windows with several labels a class is one combination of them; a label that is
    unknown is the teacher's decision at a probability of 0.5.

    Args:
        labels: Labels of all windows, [n], or [n, k].
        rows: Windows that are asked for.
        unknown: Those of them that have no label, or not all of several.
        prob: The teacher's probabilities of `unknown`, [m, k].

    Returns:
        The class of each window; of those not in `rows` it means nothing.
    """
    filled = np.array(labels)
    if labels.ndim == 1:
        filled[unknown] = most_probable(prob)
        return filled.astype(np.int64)
    own = filled[unknown]
    filled[unknown] = np.where(own >= 0, own, above_half(prob))
    groups = np.full(len(labels), -1, np.int64)
    groups[rows] = label_groups(filled[rows])
    return groups


def share_alone(labels: np.ndarray, rows: np.ndarray) -> float:
    """Computes the share of windows whose combination of labels no other one has."""
    if not len(rows):
        return 0.0
    counts = np.bincount(label_groups(labels[rows]))
    return float(np.count_nonzero(counts == 1) / len(rows))


def shuffled(
    outputs: Arrays, rows: np.ndarray, groups: np.ndarray, *, seed: int
) -> dict[str, np.ndarray]:
    """Permutes the teacher's outputs over the windows `rows`."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return _moved(outputs, rows, rows[order])


def within_class_shuffled(
    outputs: Arrays, rows: np.ndarray, groups: np.ndarray, *, seed: int
) -> dict[str, np.ndarray]:
    """Permutes the teacher's outputs among windows of the same `class_groups`."""
    rng = np.random.default_rng(seed)
    source = rows.copy()
    for group in np.unique(groups[rows]):
        where = np.flatnonzero(groups[rows] == group)
        source[where] = rows[rng.permutation(where)]
    return _moved(outputs, rows, source)


def _moved(outputs: Arrays, to: np.ndarray, source: np.ndarray) -> dict[str, Any]:
    out = {name: np.array(values) for name, values in outputs.items()}
    for name, values in outputs.items():
        out[name][to] = values[source]
    return out


SYSTEM_CONTROLS: Mapping[str, Callable[[System], System]] = {
    "alpha_0": alpha_0,
    "no_teacher": without_teacher,
}
MOVES: Mapping[str, Callable[..., dict[str, np.ndarray]]] = {
    "shuffled_teacher": shuffled,
    "within_class_shuffle": within_class_shuffled,
}
BY_CLASS = ("within_class_shuffle", "class_mean_teacher")
"""Rows that read the classes of training windows."""
OUTPUT_CONTROLS = (*MOVES, "class_mean_teacher")
"""Rows whose student gets other outputs: moved ones, or `TeacherTensor.class_means`."""
