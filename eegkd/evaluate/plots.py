"""The figures of a report, as SVG text or PNG bytes."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from eegkd.evaluate.calibration import Reliability
from eegkd.evaluate.events import (
    Detection,
    OperatingPoint,
    WindowTrack,
    timeline,
    to_spans,
)
from eegkd.evaluate.figure import (
    AMBER,
    BLUE,
    INK,
    MUTED,
    RED,
    STYLE,
    TEAL,
    make_figure,
    to_png,
    to_svg,
    words,
)
from eegkd.host.atomic import write_atomic

MODEL_COLOURS = {"teacher": AMBER, "student": BLUE}
MAX_CHANNELS = 19
_COLUMNS = 1500
_MIN_COUNT = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """How one run of a stage went.

    Attributes:
        step: Updates at which the loss was logged.
        loss: Training loss.
        val_step: Updates at which the model was validated.
        val_metric: The validation metric.
    """

    step: Float[np.ndarray, " n"]
    loss: Float[np.ndarray, " n"]
    val_step: Float[np.ndarray, " m"]
    val_metric: Float[np.ndarray, " m"]


def results_svg(
    rows: Sequence[Mapping[str, Any]], *, best_possible: float | None = None
) -> str:
    """Draws the mean and 95 % interval of every model for one metric.

    Args:
        rows: Rows of results.json of one metric, top to bottom.
        best_possible: The Bayes value of that metric, if known.
    """
    with mpl.rc_context(STYLE):
        figure, axes = make_figure(7.0, 0.55 + 0.27 * len(rows))
        ax: Axes = axes[0, 0]
        for i, row in enumerate(rows):
            if row["mean"] is None:
                continue
            colour = MODEL_COLOURS.get(row["model"], MUTED)
            low = row["mean"] if row["low"] is None else row["low"]
            high = row["mean"] if row["high"] is None else row["high"]
            ax.plot([low, high], [i, i], color=colour, lw=2, solid_capstyle="round")
            ax.plot(row["mean"], i, "o", color=colour, ms=6)
        if best_possible is not None:
            ax.axvline(best_possible, color=INK, lw=1, ls=(0, (4, 3)))
            ax.annotate(
                "Bayes",
                (best_possible, 1),
                (-3, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=8,
            )
        ax.set_yticks(range(len(rows)), [row["model"] for row in rows])
        ax.set_ylim(len(rows) - 0.5, -0.7)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
        ax.set_xlabel(words(rows[0]["metric"]) if rows else "")
        return to_svg(figure, "results")


def curves_svg(curves: Mapping[str, Sequence[Curve]], *, metric: str) -> str:
    """Draws training loss over validation metric, a column a model, a line a run."""
    with mpl.rc_context(STYLE):
        columns = len(curves)
        figure, axes = make_figure(2.9 * columns, 3.6, 2, columns, sharex="col")
        bottom = [v for runs in curves.values() for c in runs for v in c.val_metric]
        for column, (name, runs) in enumerate(curves.items()):
            colour = MODEL_COLOURS.get(name, MUTED)
            top, low = axes[:, column]
            for curve in runs:
                top.plot(curve.step, curve.loss, color=colour, lw=1, alpha=0.8)
                low.plot(
                    curve.val_step,
                    curve.val_metric,
                    color=colour,
                    lw=1.2,
                    marker=".",
                    ms=4,
                    alpha=0.8,
                )
            top.set_title(name, loc="left", color=colour, weight="bold")
            low.set_xlabel("update")
            if bottom:
                pad = 0.04 + 0.05 * np.ptp(bottom)
                low.set_ylim(min(bottom) - pad, max(bottom) + pad)
            for ax in (top, low):
                ax.grid(axis="y")
        axes[0, 0].set_ylabel("training loss")
        axes[1, 0].set_ylabel(f"validation {words(metric)}")
        figure.align_ylabels(axes[:, 0])
        return to_svg(figure, "training curves")


def confusion_svg(
    matrices: Mapping[str, Int[np.ndarray, "k k"]], class_names: Sequence[str]
) -> str:
    """Draws confusion matrices side by side, shaded by the share of the true class."""
    bare: dict[Any, Any] = {"axes.spines.left": False, "axes.spines.bottom": False}
    with mpl.rc_context(STYLE | bare):
        k = len(class_names)
        side = max(2.3, 0.45 * k + 0.9)
        figure, axes = make_figure(side * len(matrices), side + 0.3, 1, len(matrices))
        short = [name if len(name) <= 12 else f"{name[:11]}…" for name in class_names]
        for ax, (name, counts) in zip(axes[0], matrices.items(), strict=True):
            share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            colours = LinearSegmentedColormap.from_list(
                "share", ["#f5f8fb", "#9dbfde", BLUE]
            )
            # Cells as patches, not as an embedded picture: sharp at any size.
            ax.pcolormesh(share, cmap=colours, vmin=0, vmax=1, edgecolors="w", lw=2)
            for i, j in np.ndindex(k, k):
                ax.text(
                    j + 0.5,
                    i + 0.5,
                    f"{share[i, j]:.0%}\n{counts[i, j]}"
                    if k <= 6
                    else f"{share[i, j]:.0%}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if share[i, j] > 0.62 else INK,
                )
            rotation = 0 if max(map(len, short)) * k <= 24 else 40
            ax.set_xticks(
                np.arange(k) + 0.5,
                short,
                rotation=rotation,
                ha="right" if rotation else "center",
            )
            ax.set_yticks(np.arange(k) + 0.5, short if ax is axes[0, 0] else [""] * k)
            ax.tick_params(length=0)
            ax.set_aspect("equal")
            ax.invert_yaxis()
            ax.set_title(name, loc="left", weight="bold")
            ax.set_xlabel("decided")
        axes[0, 0].set_ylabel("true")
        return to_svg(figure, "confusion matrices")


def reliability_svg(
    tables: Mapping[str, Mapping[str, Reliability]],
    errors: Mapping[str, Mapping[str, float]],
) -> str:
    """Draws accuracy against confidence, a panel a model; bins of 5 windows or more.

    Args:
        tables: By model, then by "before" or "after" temperature.
        errors: The expected calibration error under the same keys.
    """
    with mpl.rc_context(STYLE):
        figure, axes = make_figure(2.7 * len(tables), 2.9, 1, len(tables))
        for ax, (name, states) in zip(axes[0], tables.items(), strict=True):
            ax.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 3)))
            for state, table in states.items():
                colour = {"before": RED, "after": TEAL}.get(state, INK)
                filled = table.count >= min(_MIN_COUNT, table.count.max())
                x, y = table.confidence[filled], table.accuracy[filled]
                label = f"{state}: ECE {errors[name][state]:.3f}"
                ax.plot(x, y, color=colour, lw=1.2, label=label)
                share = table.count[filled] / table.count.sum()
                ax.scatter(x, y, s=6 + 120 * share, color=colour, alpha=0.75, lw=0)
            ax.set_title(name, loc="left", weight="bold")
            ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal", xlabel="confidence")
            ax.legend(loc="lower right", handlelength=1.2, borderaxespad=0.2)
            ax.grid()
        axes[0, 0].set_ylabel("accuracy")
        return to_svg(figure, "reliability")


def operating_svg(curves: Mapping[str, Sequence[OperatingPoint]]) -> str:
    """Draws event sensitivity against false alarms in 24 h, a line a model."""
    with mpl.rc_context(STYLE):
        figure, axes = make_figure(5.2, 3.0)
        ax: Axes = axes[0, 0]
        for name, points in curves.items():
            x = [point.scores.fa_per_24h for point in points]
            y = [point.scores.sensitivity for point in points]
            colour = MODEL_COLOURS.get(name, MUTED)
            ax.plot(x, y, color=colour, lw=1.3, marker=".", ms=5, label=name)
        ax.set(xlabel="false alarms / 24 h", ylabel="sensitivity", ylim=(-0.03, 1.03))
        ax.set_xscale("symlog", linthresh=1.0)
        ax.set_xlim(left=-0.1)
        ax.grid()
        ax.legend(loc="lower right")
        return to_svg(figure, "operating curve")


def _envelope(
    values: Float[np.ndarray, "c t"], rate: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns times and `[c, n]` values that keep every extreme of a long trace."""
    t = values.shape[1]
    width = -(-t // _COLUMNS)
    if width < 3:
        return np.arange(t) / rate, values
    blocks = np.pad(values, ((0, 0), (0, -t % width)), mode="edge")
    blocks = blocks.reshape(len(values), -1, width)
    both = np.stack([blocks.min(axis=2), blocks.max(axis=2)], axis=2)
    times = (np.arange(both.shape[1])[:, None] + [0.25, 0.75]).ravel() * width / rate
    return times, both.reshape(len(values), -1)


def _shade(ax: Axes, truth: np.ndarray, detected: np.ndarray) -> None:
    for onset, end in detected:
        ax.axvspan(onset, end, color=RED, alpha=0.16, lw=0)
    look = {"facecolor": "none", "edgecolor": BLUE, "hatch": "///", "lw": 0}
    for onset, end in truth:  # over the traces, which would hide the hatching
        ax.axvspan(onset, end, alpha=0.5, zorder=3, **look)


def recording_figure(
    signal: Float[np.ndarray, "c t"],
    channels: Sequence[str],
    rate: float,
    track: WindowTrack,
    detections: Sequence[Detection],
    *,
    threshold: float,
    smooth: int = 3,
    title: str = "",
) -> Figure:
    """Draws traces over the probability of an event, with true and detected events.

    Up to 19 channels, each about its own median, on one scale; a channel with a NaN is
    left blank.
    """
    shown = min(len(channels), MAX_CHANNELS)
    traces = np.asarray(signal[:shown], np.float64)
    traces = traces - np.median(traces, axis=1, keepdims=True)
    spread = np.percentile(np.abs(traces), 99, axis=1)
    scale = float(np.median(spread[spread > 0])) if np.any(spread > 0) else 1.0
    times, traces = _envelope(np.clip(traces / (2.2 * scale), -0.7, 0.7), rate)
    spans = to_spans(detections)
    with mpl.rc_context(STYLE):
        figure, axes = make_figure(
            11.0,
            2.6 + 0.24 * shown,
            2,
            sharex=True,
            height_ratios=[0.6 + 0.24 * shown, 1.3],
        )
        top, low = axes[:, 0]
        for i, trace in enumerate(traces):
            top.plot(times, trace - i, color=INK, lw=0.4, alpha=0.85)
        top.set_yticks(-np.arange(shown), list(channels[:shown]), fontsize=8)
        top.set_ylim(-shown + 0.2, 0.8)
        top.tick_params(axis="both", length=0)
        top.spines[["left", "bottom"]].set_visible(False)
        for line, look in (
            (timeline(track), {"color": MUTED, "lw": 0.7, "alpha": 0.7}),
            (timeline(track, smooth=smooth), {"color": INK, "lw": 1.3}),
        ):
            step = max(1, len(line) // (4 * _COLUMNS))
            low.plot(np.arange(len(line))[::step] / 10, line[::step], **look)
        low.axhline(threshold, color=RED, lw=1, ls=(0, (4, 3)))
        low.text(
            1.003,
            threshold,
            f"{threshold:.2f}",
            color=RED,
            fontsize=8,
            va="center",
            transform=low.get_yaxis_transform(),
        )
        low.set(ylim=(-0.03, 1.03), xlim=(0, track.duration_s))
        low.set(xlabel="time (s)", ylabel="probability")
        low.grid(axis="y")
        for ax in (top, low):
            _shade(ax, track.truth, spans)
        handles = [Patch(color=RED, alpha=0.25, lw=0, label=f"detected ({len(spans)})")]
        if len(track.truth):
            true = f"true ({len(track.truth)})"
            look = {"facecolor": "none", "edgecolor": BLUE, "hatch": "////", "lw": 0}
            handles.append(Patch(label=true, **look))
        where = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 2}
        top.legend(handles=handles, borderaxespad=0.1, **where)
        if shown < len(channels):
            title = f"{title} ({shown} of {len(channels)} channels)".strip()
        top.set_title(title, loc="left", weight="bold")
    return figure


def prediction_plot(
    path: str | os.PathLike[str],
    signal: Float[np.ndarray, "c t"],
    channels: Sequence[str],
    rate: float,
    track: WindowTrack,
    detections: Sequence[Detection],
    **options: Any,
) -> Path:
    """Writes `recording_figure` as a PNG, whole or not at all."""
    figure = recording_figure(signal, channels, rate, track, detections, **options)
    return write_atomic(path, to_png(figure))
