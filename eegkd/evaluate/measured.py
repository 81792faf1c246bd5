"""What was measured of models beside predictions: ranks, errors, layer weights."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

WEIGHT = "alpha_"
"""Begins the names of the weights by which a router mixes a teacher's layers."""
Measures = Mapping[str, Mapping[str, Any]]
"""By name: `mean`, and `by_class`, where a class without windows is None."""


class Measured(NamedTuple):
    """One number of a model, the mean over its trainings.

    Attributes:
        mean: Over some test windows.
        by_class: Over those of each class; NaN where there are none.
        num: Trainings.
    """

    mean: float
    by_class: Float[np.ndarray, " k"]
    num: int


class Routing(NamedTuple):
    """The weights of a teacher's layers, and how they came about.

    Attributes:
        layers: Their names, the first one first.
        by_class: Weights on test windows.
        step: Updates at which they were watched.
        train: Mean weights on training windows, a row an evaluation.
        val: The same on validation windows.
        entropy: Mean entropy of a window's weights there, in nats.
        variance: Mean squared distance of a window's weights from the mean weights.
    """

    layers: tuple[str, ...]
    by_class: Float[np.ndarray, "l k"]
    step: Float[np.ndarray, " s"]
    train: Float[np.ndarray, "s l"]
    val: Float[np.ndarray, "s l"]
    entropy: Float[np.ndarray, " s"]
    variance: Float[np.ndarray, " s"]


def average_measured(
    runs: Mapping[str, Sequence[Measures]],
) -> dict[str, dict[str, Measured]]:
    """Averages over the trainings of each model; models without measures are left out.

    Args:
        runs: What each training of each model measured.
    """
    found: dict[str, dict[str, Measured]] = {}
    for model, trainings in runs.items():
        for name in dict.fromkeys(name for one in trainings for name in one):
            own = [one[name] for one in trainings if name in one]
            # None becomes NaN.
            classes = np.array([one["by_class"] for one in own], np.float64)
            mean = float(np.mean([one["mean"] for one in own]))
            by_class = classes.mean(axis=0)
            found.setdefault(model, {})[name] = Measured(mean, by_class, len(own))
    return found


def measured_rows(
    measured: Mapping[str, Mapping[str, Measured]],
) -> list[dict[str, Any]]:
    """Makes rows of results.json: means over trainings, without an interval."""
    return [
        {
            "model": model,
            "metric": name,
            "mean": one.mean,
            "low": None,
            "high": None,
            "n_subjects": None,
            "seeds": one.num,
            "verdict": None,
        }
        for model, own in measured.items()
        for name, one in own.items()
    ]


def routing_of(
    log: Iterable[Mapping[str, Any]], measured: Mapping[str, Mapping[str, Measured]]
) -> dict[str, Routing]:
    """Joins the layers' weights of each model: in the end, and at each evaluation.

    Args:
        log: Lines of metrics.jsonl; folds and seeds are averaged.
        measured: By model.
    """
    names = {
        model: [name for name in own if name.startswith(WEIGHT)]
        for model, own in measured.items()
    }
    logged: dict[str, dict[int, dict[tuple, Mapping[str, Any]]]] = {}
    for row in log:
        wanted = names.get(row["model"])
        if wanted and f"val/{wanted[0]}" in row:
            # A resumed run logs some steps again: the last word counts.
            by_step = logged.setdefault(row["model"], {}).setdefault(row["step"], {})
            by_step[row["fold"], row["seed"]] = row
    found = {}
    for model, by_step in logged.items():
        own, steps = names[model], sorted(by_step)

        def over(part: str, keys: Sequence[str], steps=steps, by_step=by_step):
            rows = (
                [[row[f"{part}/{key}"] for key in keys] for row in by_step[s].values()]
                for s in steps
            )
            return np.array([np.mean(row, axis=0) for row in rows])

        found[model] = Routing(
            layers=tuple(name.removeprefix(WEIGHT) for name in own),
            by_class=np.stack([measured[model][name].by_class for name in own]),
            step=np.array(steps, float),
            train=over("train", own),
            val=over("val", own),
            entropy=over("val", ["routing_entropy"])[:, 0],
            variance=over("val", ["routing_variance"])[:, 0],
        )
    return found
