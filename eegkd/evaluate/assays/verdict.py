"""The verdict: every row's mean and interval, and the student against each."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from eegkd.evaluate.assays.speed import Facts, facts_of
from eegkd.evaluate.evidence import Assay, Evidence, Folds, always
from eegkd.evaluate.learned import unlearned_notes
from eegkd.evaluate.predictions import Predictions, concatenate, with_units
from eegkd.evaluate.report import figures
from eegkd.evaluate.report.parts import (
    Html,
    cell,
    chip,
    count,
    details,
    figure,
    join,
    macro,
    number,
    p_value,
    section,
    student_at,
    table,
    words,
)
from eegkd.evaluate.report.verdicts import (
    basis_lines,
    claim_lines,
    marks,
    no_room_lines,
)
from eegkd.evaluate.rows import A_A, A_A_OF, MODELS, STUDENT, in_order
from eegkd.evaluate.statistics import Comparison, Summary, summarise


def merged(folds: Folds, *, has_subjects: bool) -> dict[str, list[Predictions]]:
    """Joins the folds of every seed; units are folds where there are no subjects."""
    runs: dict[str, list[Predictions]] = {}
    for model, seeds in folds.items():
        runs[model] = []
        for parts in seeds.values():
            joined = concatenate(list(parts))
            if not has_subjects:
                units = [np.full(len(p.label), f"fold{i}") for i, p in enumerate(parts)]
                joined = with_units(joined, np.concatenate(units))
            runs[model].append(joined)
    return runs


def summary_of(evidence: Evidence) -> Summary:
    """Computes the summary of every row, and the student against each."""
    runs = merged(evidence.test, has_subjects=evidence.manifest["has_subjects"])
    first = next(iter(evidence.test[STUDENT].values()))
    folds = np.repeat(np.arange(len(first)), [len(part.label) for part in first])
    return summarise(
        runs,
        evidence.task.metrics,
        folds=folds,
        units="subject" if evidence.manifest["has_subjects"] else "fold",
        registered=evidence.registered,
        why_not=evidence.left_out,
        same_shape=_same_shape(evidence),
        seed=evidence.seed,
    )


def basis_of(evidence: Evidence) -> list[str]:
    """Lists what the verdicts of a run rest on, in sentences."""
    summary, metric = evidence.once(summary_of), evidence.task.metrics[0]
    parts = next(iter(evidence.test[STUDENT].values()))
    one_each = not evidence.manifest["has_subjects"] or all(
        len(np.unique(part.subject)) == 1 for part in parts
    )
    return [
        *claim_lines(summary, metric),
        *basis_lines(summary, metric, one_each=one_each),
    ]


def _same_shape(evidence: Evidence) -> list[str]:
    """Lists further rows whose models are as large as the student, and as many."""
    costs, seeds = evidence.costs, {row: len(x) for row, x in evidence.test.items()}
    return [
        row
        for row, cost in costs.items()
        if row not in MODELS
        and STUDENT in costs
        and cost.parameters == costs[STUDENT].parameters
        and seeds.get(row) == seeds[STUDENT]
    ]


def rows_of(evidence: Evidence, metric: str) -> dict[str, dict[str, Any]]:
    """Returns the rows of results.json of one metric, in order, by model."""
    rows = evidence.once(summary_of).rows
    own = {row["model"]: row for row in rows if row["metric"] == metric}
    return {name: own[name] for name in in_order(own)}


def head_room_note(summary: Summary, metric: str) -> tuple[str, ...]:
    """Warns if the teacher does not beat the small net: nothing to transfer."""
    means = {r["model"]: r["mean"] for r in summary.rows if r["metric"] == metric}
    teacher, small = means.get("teacher"), means.get("small_net")
    if teacher is None or small is None or teacher > small:
        return ()
    return (
        f"The teacher ({teacher:.3f}) is not above the small net ({small:.3f}): this "
        "run cannot show transfer, whatever the verdict.",
    )


def notes_of(evidence: Evidence) -> list[str]:
    """Lists the caveats that belong to the results."""
    summary = evidence.once(summary_of)
    metric = evidence.task.metrics[0]
    return [
        *evidence.notes,
        *head_room_note(summary, metric),
        *no_room_lines(summary, metric),
        *unlearned_notes(evidence),
    ]


def _run(evidence: Evidence) -> Mapping[str, Mapping[str, Comparison]]:
    return evidence.once(summary_of).comparisons


def _section(
    comparisons: Mapping[str, Mapping[str, Comparison]], evidence: Evidence
) -> Html:
    return join((_results(evidence), _comparisons(comparisons)))


def _size(facts: Facts) -> Html:
    """Formats the size, the head apart: a foundation model's is most of it."""
    if not (facts.parameters and facts.head):
        return count(facts.parameters)
    rest = facts.parameters - facts.head
    return cell(count(facts.parameters), count(rest), f"+ head {count(facts.head)}")


def _beside(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the lines below a verdict: what it is, or why there is none."""
    return (*marks(row), row["reason"]) if row["reason"] else marks(row)


def _results(evidence: Evidence) -> Html:
    metrics = evidence.task.metrics
    primary = metrics[0]
    tables = {metric: rows_of(evidence, metric) for metric in metrics}
    known = evidence.once(facts_of)
    body = []
    for name, row in tables[primary].items():
        facts = known.get(name, Facts())
        cells = [cell(name, MODELS.get(name, ""), bold=True)]
        for one in (tables[metric][name] for metric in metrics):
            span = f"{number(one['low'])} to {number(one['high'])}"
            cells.append(cell(number(one["mean"]), span))
        cells += [
            cell(chip(row["verdict"]), *_beside(row)),
            _size(facts),
            count(facts.windows_per_s),
            count(facts.latency_ms),
        ]
        body.append(cells)
    head = ["model", *map(words, metrics), f"verdict ({words(primary)})"]
    head += ["parameters", "windows/s", "batch-1 ms"]
    columns = (0, len(metrics) + 1)
    marked = student_at(list(tables[primary]))
    excluded = {
        f"{words(metric)}: {max(row['num_excluded'] for row in rows.values())}"
        for metric, rows in tables.items()
        if any(row["num_excluded"] for row in rows.values())
    }
    svg = figures.results_svg(
        list(tables[primary].values()), best_possible=evidence.bayes.get(primary)
    )
    results = macro("results.html.j2", "results")
    units = {
        f"{words(metric)}: {_units(rows[STUDENT])}" for metric, rows in tables.items()
    }
    return results(
        table=table(head, body, text_columns=columns, marked=marked),
        units=sorted(units),
        lines=basis_of(evidence),
        excluded=", ".join(sorted(excluded)),
        figure=figure(svg),
    )


def _units(row: Mapping[str, Any]) -> str:
    """Formats the unit of a row and the kind of its interval."""
    if row["unit"] == "cohort":
        return f"of a cohort of {row['n_subjects']} subjects, bootstrap interval"
    return f"mean over {row['n_subjects']} {row['unit']}s, t interval"


def _comparisons(comparisons: Mapping[str, Mapping[str, Comparison]]) -> Html:
    head = ("difference of", "mean", "95 % interval", "p (t)", "p (exchange)")
    head += ("p (decides)", "MDE", "error", "over seeds", "n", "verdict")
    tables = []
    primary = next(iter(comparisons))
    for metric, found in comparisons.items():
        body = [_comparison_cells(name, found[name]) for name in in_order(found)]
        if body:
            content = table(head, body, text_columns=(0, 10))
            tables.append(details(words(metric), content, shown=metric == primary))
    if not tables:
        return ""
    return section("Comparisons", *tables, macro("results.html.j2", "of_errors")())


def _comparison_cells(name: str, c: Comparison) -> tuple[str, ...]:
    first, second = (A_A, A_A_OF) if name == A_A else (STUDENT, name)
    role = ("registered",) if c.registered else ()
    return (
        cell(f"{first} − {second}", *role),
        number(c.mean_difference),
        f"{number(c.low)} to {number(c.high)}",
        p_value(c.p_t),
        p_value(c.p_signflip),
        cell(p_value(c.p_adjusted), f"level {c.level:.3g}"),
        number(c.mde),
        number(c.error),
        number(c.seed_error),
        f"{c.n}, cohort" if c.unit == "cohort" else str(c.n),
        chip(c.verdict),
    )


ASSAY = Assay(
    name="comparisons",
    applies=always,
    run=_run,
    section=_section,
    rows=lambda evidence: evidence.once(summary_of).rows,
)
