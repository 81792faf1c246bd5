"""Parts of a report's sections: numbers, tables, figures.

Text is escaped where it enters; these functions return HTML, which is not escaped
again.
"""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from eegkd.host.text import visible

Html = str

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    # What is no HTML yet is escaped after this.
    finalize=lambda value: visible(value) if type(value) is str else value,
)


def macro(file: str, name: str) -> Callable[..., Html]:
    """Returns a macro of a template in this folder: `values -> HTML`."""
    return getattr(ENVIRONMENT.get_template(file).module, name)


def words(metric: str) -> str:
    """Formats a metric's name for display."""
    capitals = {"auroc": "AUROC", "auc": "AUC", "pr": "PR", "f1": "F1"}
    capitals |= {"ap": "AP", "bce": "BCE"}
    return " ".join(capitals.get(part, part) for part in metric.split("_"))


def number(value: float | None, digits: int = 3) -> str:
    """Formats a rounded number; a dash where there is no finite value."""
    known = value is not None and np.isfinite(value)
    return f"{value:.{digits}f}".replace("-", "−") if known else "–"


def count(value: int | float | None) -> str:
    """Formats a count: digits in groups, small numbers rounded."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def p_value(value: float) -> str:
    """Formats a p-value; a dash where there is none."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def chip(verdict: str | None) -> Html:
    """Formats a verdict as a coloured chip."""
    return macro("parts.html.j2", "chip")(verdict)


def cell(text: str, *small: str, bold: bool = False) -> Html:
    """Formats the cell of a table, with smaller lines below."""
    return macro("parts.html.j2", "cell")(text, small, bold)


def table(
    head: Sequence[str],
    body: Sequence[Sequence[str]],
    *,
    text_columns: Sequence[int] = (0,),
    marked: int | None = None,
) -> Html:
    """Formats rows of cells, which are text or HTML.

    Args:
        head: Names of the columns.
        body: Rows of as many cells.
        text_columns: Columns that are not numbers.
        marked: The row to mark, as the student's.
    """
    if wrong := [row for row in body if len(row) != len(head)]:
        raise ValueError(f"{len(head)} columns, but a row of {len(wrong[0])} cells.")
    return macro("parts.html.j2", "table")(head, body, text_columns, marked)


def note(text: str) -> Html:
    """Formats a note below a table."""
    return macro("parts.html.j2", "note")(text)


def figure(svg: str, caption: str = "") -> Html:
    """Formats a figure of `report.figures`."""
    return macro("parts.html.j2", "figure")(svg, caption)


def picture(png: bytes, alt: str, caption: str = "") -> Html:
    """Formats a PNG image."""
    data = base64.b64encode(png).decode()
    return macro("parts.html.j2", "picture")(data, alt, caption)


def details(title: str, content: Html, *, shown: bool = False) -> Html:
    """Formats parts that are folded away below a title."""
    return macro("parts.html.j2", "details")(title, content, shown)


def section(title: str, *parts: Html) -> Html:
    """Formats parts below a heading."""
    return macro("parts.html.j2", "section")(title, parts)


def join(parts: Sequence[Html]) -> Html:
    """Joins parts, one below the other."""
    return macro("parts.html.j2", "join")(parts)


def student_at(names: Sequence[Any]) -> int | None:
    """Returns the student's place among rows, which a table marks."""
    return list(names).index("student") if "student" in names else None
