"""Figures without matplotlib's global state: their look, and SVG text or PNG bytes."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, RED, TEAL, AMBER = "#2563a8", "#c8455a", "#1f8a7d", "#c07f1f"

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    # A dollar in a name begins no formula.
    "text.parse_math": False,
}


def make_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Makes a figure, in inches, and its axes as an array of rows and columns."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


@contextlib.contextmanager
def _drawn(settings: dict[Any, Any]) -> Iterator[None]:
    """Draws with some settings; letters that the font lacks become its empty boxes."""
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def to_svg(figure: Figure, name: str) -> str:
    """Renders a figure as an `<svg>` element that takes the page's font and width."""
    buffer = io.StringIO()
    # Ids must differ between the figures of one page and agree between two runs.
    with _drawn({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("'DejaVu Sans'", "system-ui, sans-serif")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    shape = f"width:100%;max-width:{figure.get_figwidth() * 108:.0f}px"
    return re.sub(
        r' width="[^"]*pt" height="[^"]*pt"',
        f' role="img" aria-label="{name}" style="{shape}"',
        text,
        count=1,
    ).replace(' id="figure_1"', "", 1)


def to_png(figure: Figure, *, dpi: int = 120) -> bytes:
    """Renders a figure as PNG."""
    buffer = io.BytesIO()
    with _drawn(STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()
