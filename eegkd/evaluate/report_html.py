"""Small pieces of HTML: numbers, verdicts and tables."""

from collections.abc import Sequence
from html import escape

import numpy as np

from eegkd.evaluate import plots


def metric_words(metric: str) -> str:
    """Names a metric for people."""
    return escape(plots.words(metric))


def number(value: float | None, digits: int = 3) -> str:
    """Rounds; a dash where there is no finite value."""
    known = value is not None and np.isfinite(value)
    return f"{value:.{digits}f}".replace("-", "−") if known else "–"


def count(value: int | float | None) -> str:
    """Groups the digits of a large number, rounds a small one."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def p_value(value: float) -> str:
    """Rounds a probability."""
    return f"{value:.3f}" if value >= 0.001 else "&lt; 0.001"


def chip(verdict: str | None) -> str:
    """Colours a verdict."""
    return f'<span class="chip {verdict}">{verdict}</span>' if verdict else "–"


def table(
    head: Sequence[str],
    body: Sequence[tuple[str, Sequence[str]]],
    *,
    text_columns: Sequence[int] = (0,),
) -> str:
    """Joins cells that are HTML already; every row comes with its class."""

    def cells(tag: str, row: Sequence[str]) -> str:
        looks = [
            "" if i in text_columns else ' class="number"' for i in range(len(row))
        ]
        return "".join(
            f"<{tag}{a}>{x}</{tag}>" for a, x in zip(looks, row, strict=True)
        )

    rows = "".join(f'<tr class="{look}">{cells("td", row)}</tr>' for look, row in body)
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", head)}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
