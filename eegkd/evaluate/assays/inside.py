"""Measurements besides predictions: ranks, errors, weights of layers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from eegkd.evaluate.evidence import Assay, Evidence, Measures, always
from eegkd.evaluate.report import figures
from eegkd.evaluate.report.figures import Weights
from eegkd.evaluate.report.parts import (
    Html,
    figure,
    join,
    note,
    number,
    section,
    student_at,
    table,
    words,
)
from eegkd.evaluate.rows import MODELS, in_order

MOST_SHOWN = 4
NOTE = (
    "On some test windows, means over trainings. Ranks are effective ranks: how many "
    "directions the tokens span, before and after a compression, and those of what "
    "they were to mimic. A band error is the relative error of that band's power, "
    "student against what it was to mimic; a token's features have no order in time, "
    "so bands are of a learned ordering, and rows that mimic different layers are no "
    "match."
)
GROUPS = {
    "routing": (
        "Weights of the teacher's layers",
        "Above, the mean weight of each layer of the teacher on test windows of each "
        "class. Below, on training (dashed) and validation subjects (whole) while it "
        "was trained. The layers are what the teacher makes of windows it was tuned "
        "on, or of new people's.",
    )
}
"""Title and caption of groups; of others, their name and the general caption."""
CAPTION = (
    "Above, means on test windows of each class. Below, on training (dashed) and "
    "validation subjects (whole) while it was trained."
)


class Measured(NamedTuple):
    """One number of a model, the mean over its trainings.

    Attributes:
        mean: Mean over some test windows.
        by_class: Mean over those of each class; NaN where there are none.
        num: Number of trainings.
    """

    mean: float
    by_class: Float[np.ndarray, " k"]
    num: int


def average_measured(
    runs: Mapping[str, Sequence[Measures]],
) -> dict[str, dict[str, Measured]]:
    """Averages over the trainings of each model; models without measures are left out.

    Args:
        runs: Measurements of each training of each model.
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
            "reason": "a measurement of trainings, which is not compared",
        }
        for model, own in measured.items()
        for name, one in own.items()
    ]


def weights_of(
    log: Iterable[Mapping[str, Any]],
    measured: Mapping[str, Mapping[str, Measured]],
    group: str,
    members: Sequence[str],
) -> dict[str, Weights]:
    """Joins the measures of a group, by model: in the end, and at each evaluation.

    Args:
        log: Lines of metrics.jsonl; folds and seeds are averaged.
        measured: Result of `average_measured`.
        group: Name of the group; `<group>_entropy` and `<group>_variance` are shown
            with it if they were measured.
        members: Names of its measures.
    """
    names = {m: [n for n in own if n in members] for m, own in measured.items()}
    logged: dict[str, dict[int, dict[tuple, Mapping[str, Any]]]] = {}
    for row in log:
        wanted = names.get(row["model"])
        if wanted and f"val/{wanted[0]}" in row:
            # A resumed run logs some steps twice: the later row counts.
            by_step = logged.setdefault(row["model"], {}).setdefault(row["step"], {})
            by_step[row["fold"], row["seed"]] = row
    found = {}
    for model, by_step in logged.items():
        own, steps = names[model], sorted(by_step)

        def over(part: str, keys: Sequence[str], steps=steps, by_step=by_step):
            rows = (
                [
                    [row.get(f"{part}/{key}", np.nan) for key in keys]
                    for row in by_step[s].values()
                ]
                for s in steps
            )
            return np.array([np.mean(row, axis=0) for row in rows])

        found[model] = Weights(
            names=_without_first_word(own),
            by_class=np.stack([measured[model][name].by_class for name in own]),
            step=np.array(steps, float),
            train=over("train", own),
            val=over("val", own),
            entropy=over("val", [f"{group}_entropy"])[:, 0],
            variance=over("val", [f"{group}_variance"])[:, 0],
        )
    return found


def _without_first_word(names: Sequence[str]) -> tuple[str, ...]:
    """Drops the word that names of a group begin with, as `alpha_` of a router's."""
    first = names[0].partition("_")[0] + "_"
    shared = all(name.startswith(first) for name in names)
    return tuple(name.removeprefix(first) if shared else name for name in names)


def _measures(evidence: Evidence) -> dict[str, dict[str, Measured]]:
    return average_measured(evidence.measured)


def _run(evidence: Evidence) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        model: {name: one._asdict() for name, one in own.items()}
        for model, own in evidence.once(_measures).items()
    }


def _section(result: Mapping[str, Mapping[str, Any]], evidence: Evidence) -> Html:
    grouped = {name for members in evidence.groups.values() for name in members}
    drawn = (_group(name, own, evidence) for name, own in evidence.groups.items())
    return join((_table(result, grouped), *drawn))


def _table(measured: Mapping[str, Mapping[str, Any]], grouped: set[str]) -> Html:
    names = dict.fromkeys(
        name for own in measured.values() for name in own if name not in grouped
    )
    if not names:
        return ""
    models, body = in_order(measured), []
    for model in models:
        own = measured[model]
        means = (number(own[n]["mean"] if n in own else None) for n in names)
        body.append((model, *means))
    content = table(("model", *map(words, names)), body, marked=student_at(models))
    return section("Measured inside", content, note(NOTE))


def _group(group: str, members: Sequence[str], evidence: Evidence) -> Html:
    measured = evidence.once(_measures)
    weights = weights_of(evidence.log, measured, group, members)
    # The student first; controls whose teacher was changed tell nothing here.
    names = [n for n in in_order(weights) if n == "student" or n not in MODELS]
    shown = {name: weights[name] for name in names[:MOST_SHOWN]}
    if not shown:
        return ""
    title, caption = GROUPS.get(group, (words(group).capitalize(), CAPTION))
    name = title[:1].lower() + title[1:]
    svg = figures.weights_svg(shown, evidence.store.classes, name=name)
    return section(title, figure(svg, caption))


ASSAY = Assay(
    name="measured",
    applies=always,
    run=_run,
    section=_section,
    rows=lambda evidence: measured_rows(evidence.once(_measures)),
)
