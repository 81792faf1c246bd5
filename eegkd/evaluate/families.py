"""Which comparisons decide together: the registered ones, the others, the control.

A run registers one claim, that its student is better than each of a few rows
(`no_teacher` and `alpha_0`, unless the system says). All have to hold, so each is
tested at 5 %. The other rows are a family of their own, adjusted by Holm, and
exploratory where the registered comparison has found nothing, or on a metric that is
not the first.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from eegkd.evaluate.paired import ALPHA, Comparison, Verdict, judged
from eegkd.evaluate.rows import A_A


class Registered(NamedTuple):
    """The registered comparison.

    Attributes:
        verdict: better than all of its rows; worse than one; or neither. None where a
            row has no verdict.
        reason: Why there is none; "" where there is one.
    """

    verdict: Verdict | None
    reason: str = ""

    @property
    def found(self) -> bool:
        """True if it has found a difference."""
        return self.verdict in ("better", "worse")


def holm(ps: Sequence[float]) -> Float64[np.ndarray, " m"]:
    """Adjusts p-values by Holm's step-down: `max_{j <= i} min(1, (m - j) p_(j))`."""
    p = np.asarray(ps, np.float64)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def holm_levels(ps: Sequence[float]) -> Float64[np.ndarray, " m"]:
    """Returns the level that Holm's step-down compares each p-value with."""
    p = np.asarray(ps, np.float64)
    levels = np.empty_like(p)
    levels[np.argsort(p, kind="stable")] = ALPHA / np.arange(len(p), 0, -1)
    return levels


def judge_registered(
    found: Mapping[str, Comparison],
    registered: Sequence[str],
    why_not: Mapping[str, str],
) -> Registered:
    """Joins the verdicts of the registered rows: all must hold, each at 5 %.

    Args:
        found: Comparisons by row, those of registered rows with their verdicts.
        registered: Names of the rows.
        why_not: Why a row was not trained.
    """
    if not registered:
        return Registered(None, "no comparison is registered")
    for name in registered:
        if name not in found:
            reason = why_not.get(name, "it was not trained")
            return Registered(None, f"there is no {name}: {reason}")
    for name in registered:
        if found[name].verdict is None:
            return Registered(None, f"against {name}, {found[name].reason}")
    verdicts = {found[name].verdict for name in registered}
    if verdicts == {"better"}:
        return Registered("better")
    return Registered("worse" if "worse" in verdicts else "undetectable")


def judge_family(
    found: Mapping[str, Comparison],
    registered: Sequence[str],
    *,
    why_not: Mapping[str, str] = {},
    secondary: bool = False,
) -> tuple[dict[str, Comparison], Registered]:
    """Judges the comparisons of one metric.

    Args:
        found: The student against each row; `a_a` against its own.
        registered: Rows that the student must all beat.
        why_not: Why a row was not trained.
        secondary: True for a metric that is not the first: all is exploratory.
    """
    known = dict(found)
    for name in (*registered, A_A):
        if name in known:
            own = dataclasses.replace(known[name], registered=name in registered)
            known[name] = judged(own, own.p)
    claim = judge_registered(known, registered, why_not)
    family = [n for n in known if n not in registered and n != A_A]
    tested = [name for name in family if not known[name].reason]
    ps = [known[name].p for name in tested]
    levels = zip(tested, holm(ps), holm_levels(ps), strict=True)
    for name, p, level in levels:
        known[name] = judged(known[name], float(p), level=float(level))
    for name in known:
        outside = secondary or (name in family and not claim.found)
        known[name] = dataclasses.replace(known[name], exploratory=outside)
    return known, claim
