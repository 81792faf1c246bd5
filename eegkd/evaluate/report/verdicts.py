"""Verdicts in words, the same in the terminal and in the report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eegkd.evaluate.paired import Comparison
from eegkd.evaluate.rows import A_A, A_A_OF, STUDENT, in_order
from eegkd.evaluate.statistics import Summary

CLAIMS = {
    "better": "better than each, so distillation helps",
    "worse": "worse than one of them, so distillation does not help",
    "undetectable": "undetectable, so this run does not show that distillation helps",
}
FIXED = (
    "Verdicts hold each fold's one teacher fixed; their error holds test subjects, and "
    "trainings of the student and the rows built like it."
)
ONE_SEED = (
    "With one seed nothing tells how far another training of the same recipe would "
    "move a difference: verdicts hold these trainings fixed (--num_seeds 2)."
)


def marks(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns what stands beside a row's verdict."""
    found = ("exploratory",) if row["exploratory"] and row["verdict"] else ()
    return (*found, "no room") if row["no_room"] else found


def short_verdict(row: Mapping[str, Any]) -> str:
    """Formats a row's verdict for a narrow column; exploratory ones in parentheses."""
    words = row["verdict"] or "none"
    if row["exploratory"] and row["verdict"]:
        words = f"({words})"
    return f"{words}, no room" if row["no_room"] else words


def reasons(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Groups rows without a verdict by their reason, without each one's figures."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] is None and row["model"] != STUDENT:
            short = row["reason"].partition(";")[0]
            found.setdefault(short, []).append(row["model"])
    return found


def difference(first: str, second: str, metric: str, c: Comparison) -> str:
    """Formats a comparison with its interval and what it could have found."""
    several = np.isfinite(c.seed_error)
    seeds = f", standard error over seeds {c.seed_error:.3f}" if several else ""
    known = f"({c.low:+.3f} to {c.high:+.3f}), " if np.isfinite(c.low) else ""
    mde = f", minimum detectable effect {c.mde:.3f}" if np.isfinite(c.mde) else ""
    verdict = c.verdict or f"no verdict ({c.reason})"
    gap = f"{c.mean_difference:+.3f} " if np.isfinite(c.mean_difference) else ""
    return (
        f"{first} minus {second} on {metric}: {gap}{known}n = {c.n}{seeds}{mde}: "
        f"{verdict}."
    )


def student_row(summary: Summary, metric: str) -> Mapping[str, Any]:
    """Returns the student's own row, whose verdict is the registered comparison."""
    own = (row for row in summary.rows if row["metric"] == metric)
    return next(row for row in own if row["model"] == STUDENT)


def claim_lines(summary: Summary, metric: str) -> Iterator[str]:
    """Formats the registered comparison, its parts, and the negative control."""
    found = summary.comparisons[metric]
    registered = [name for name in in_order(found) if found[name].registered]
    for name in registered:
        yield difference("Student", name, metric, found[name])
    claim = student_row(summary, metric)
    if claim["verdict"]:
        names = " and ".join(registered)
        yield f"Registered comparison, with {names}: {CLAIMS[claim['verdict']]}."
    else:
        yield f"The registered comparison has no verdict: {claim['reason']}."
    if A_A in found:
        line = difference(A_A, A_A_OF, metric, found[A_A])
        if found[A_A].verdict in ("better", "worse"):
            line += (
                " Both are one recipe: this run tells trainings apart, one in twenty "
                "does; read its other verdicts with that."
            )
        yield line


def basis_lines(
    summary: Summary, metric: str, *, one_each: bool = False
) -> Iterator[str]:
    """Formats what verdicts rest on, and why some rows have none.

    Args:
        summary: Rows and comparisons.
        metric: Name of the metric.
        one_each: True if every fold tests one unit, whose spread holds trainings.
    """
    rows = [row for row in summary.rows if row["metric"] == metric]
    student = student_row(summary, metric)
    if student["unit"] == "cohort":
        yield (
            f"Unit: the cohort of {student['n_subjects']} test subjects, as too few "
            f"have a figure of their own in {metric}. Intervals are a bootstrap over "
            "subjects."
        )
    if any(row["verdict"] for row in rows):
        yield FIXED if student["seeds"] > 1 or one_each else ONE_SEED
    for reason, names in reasons(rows).items():
        yield f"No verdict for {', '.join(names)}: {reason}."
    if any(row["exploratory"] and row["verdict"] for row in rows):
        yield (
            "Exploratory (in parentheses, where there is no room for the word): the "
            "registered comparison has found nothing, so what the other rows show is "
            "for another run to test."
        )


def no_room_lines(summary: Summary, metric: str) -> Iterator[str]:
    """Names the rows that the teacher itself is not above, by what could be found."""
    means = {r["model"]: r["mean"] for r in summary.rows if r["metric"] == metric}
    found = summary.comparisons[metric]
    for name in in_order(found):
        c = found[name]
        if c.no_room and means.get("teacher") is not None:
            gap = means["teacher"] - means[name]
            yield (
                f"No room beside {name}: the teacher itself is {gap:+.3f} from it, and "
                f"{c.mde:.3f} is the least that this run could have detected."
            )
