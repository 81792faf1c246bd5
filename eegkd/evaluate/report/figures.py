"""The figures of a report, as SVG text."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from eegkd.evaluate.calibration import Reliability
from eegkd.evaluate.events import OperatingPoint
from eegkd.evaluate.report.figure import (
    AMBER,
    BLUE,
    INK,
    MUTED,
    RED,
    STYLE,
    TEAL,
    make_figure,
    to_svg,
)
from eegkd.evaluate.report.parts import words
from eegkd.host.text import plain

MODEL_COLOURS = {"teacher": AMBER, "student": BLUE}
_MIN_COUNT = 5
_LONGEST = 32
_SHARES = LinearSegmentedColormap.from_list("share", ["#f5f8fb", "#9dbfde", BLUE])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """Training curve of one run of a stage.

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


class Weights(NamedTuple):
    """Measures that share a group, as the weights of a teacher's layers, of one model.

    Attributes:
        names: Names of the measures, in order.
        by_class: Means on test windows.
        step: Updates at which they were measured.
        train: Means on training windows, one row per evaluation.
        val: Means on validation windows, likewise.
        entropy: Mean entropy of a window's weights there, in nats; NaN where it is
            not known.
        variance: Mean squared distance of a window's weights from the mean weights.
    """

    names: tuple[str, ...]
    by_class: Float[np.ndarray, "l k"]
    step: Float[np.ndarray, " s"]
    train: Float[np.ndarray, "s l"]
    val: Float[np.ndarray, "s l"]
    entropy: Float[np.ndarray, " s"]
    variance: Float[np.ndarray, " s"]


def results_svg(
    rows: Sequence[Mapping[str, Any]], *, best_possible: float | None = None
) -> str:
    """Draws the mean and 95 % interval of every model for one metric.

    Args:
        rows: Rows of results.json of one metric, top to bottom.
        best_possible: The Bayes value of that metric on raw windows, if known.
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
                "Bayes, raw windows",
                (best_possible, 1),
                (-3, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=8,
            )
        ax.set_yticks(range(len(rows)), [plain(row["model"], _LONGEST) for row in rows])
        ax.set_ylim(len(rows) - 0.5, -0.7)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
        ax.set_xlabel(plain(words(rows[0]["metric"])) if rows else "")
        return to_svg(figure, "results")


def curves_svg(curves: Mapping[str, Sequence[Curve]], *, metric: str) -> str:
    """Draws training loss over validation metric: models in columns, runs as lines."""
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
            top.set_title(plain(name, 24), loc="left", color=colour, weight="bold")
            low.set_xlabel("update")
            if bottom:
                pad = 0.04 + 0.05 * np.ptp(bottom)
                low.set_ylim(min(bottom) - pad, max(bottom) + pad)
            for ax in (top, low):
                ax.grid(axis="y")
        axes[0, 0].set_ylabel("training loss")
        axes[1, 0].set_ylabel(f"validation {plain(words(metric), 40)}")
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
        short = [plain(name, 12) for name in class_names]
        for ax, (name, counts) in zip(axes[0], matrices.items(), strict=True):
            share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            # Cells as patches, not as an embedded picture: sharp at any size.
            ax.pcolormesh(share, cmap=_SHARES, vmin=0, vmax=1, edgecolors="w", lw=2)
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
            ax.set_title(plain(name, 24), loc="left", weight="bold")
            ax.set_xlabel("decided")
        axes[0, 0].set_ylabel("true")
        return to_svg(figure, "confusion matrices")


def cells_svg(
    matrices: Mapping[str, Int[np.ndarray, "k 2 2"]],
    class_names: Sequence[str],
    *,
    most: int = 9,
) -> str:
    """Draws one small confusion matrix per class, `most` in a row, models below."""
    bare: dict[Any, Any] = {"axes.spines.left": False, "axes.spines.bottom": False}
    with mpl.rc_context(STYLE | bare):
        k = len(class_names)
        columns, lines = min(k, most), -(-k // most)
        rows = lines * len(matrices)
        figure, axes = make_figure(1.05 * columns + 0.6, 1.45 * rows, rows, columns)
        for ax in axes.flat:
            ax.set_axis_off()
        for i, (model, cells) in enumerate(matrices.items()):
            for j, (name, counts) in enumerate(zip(class_names, cells, strict=True)):
                ax = axes[i * lines + j // most, j % most]
                _small_confusion(ax, counts)
                ax.set_title(plain(name, 12), loc="left", fontsize=8)
                if j % most == 0:
                    ax.set_ylabel(f"{plain(model, 16)}\ntrue")
                    ax.set_yticks([0.5, 1.5], ["no", "yes"])
        return to_svg(figure, "confusion of each class")


def _entry(name: str) -> str:
    """Formats a name in a legend, which leaves out those that begin with "_"."""
    text = plain(name, _LONGEST)
    return f" {text}" if text.startswith("_") else text


def _small_confusion(ax: Axes, counts: Int[np.ndarray, "2 2"]) -> None:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.set_axis_on()
    ax.pcolormesh(share, cmap=_SHARES, vmin=0, vmax=1, edgecolors="w", lw=1)
    for i, j in np.ndindex(2, 2):
        ax.text(
            j + 0.5,
            i + 0.5,
            f"{share[i, j]:.0%}\n{counts[i, j]}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if share[i, j] > 0.62 else INK,
        )
    ax.set_xticks([0.5, 1.5], ["no", "yes"], fontsize=7)
    ax.set_yticks([0.5, 1.5], ["", ""], fontsize=7)
    ax.tick_params(length=0)
    ax.set_aspect("equal")
    ax.invert_yaxis()


def reliability_svg(
    tables: Mapping[str, Mapping[str, Reliability]],
    errors: Mapping[str, Mapping[str, float]],
) -> str:
    """Draws accuracy against confidence by model, in bins of 5 windows or more.

    Args:
        tables: Bins by model, then by "before" or "after" temperature.
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
            ax.set_title(plain(name, 24), loc="left", weight="bold")
            ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal", xlabel="confidence")
            ax.legend(loc="lower right", handlelength=1.2, borderaxespad=0.2)
            ax.grid()
        axes[0, 0].set_ylabel("accuracy")
        return to_svg(figure, "reliability")


def operating_svg(curves: Mapping[str, Sequence[OperatingPoint]]) -> str:
    """Draws event sensitivity against false alarms in 24 h, one line per model."""
    with mpl.rc_context(STYLE):
        figure, axes = make_figure(5.2, 3.0)
        ax: Axes = axes[0, 0]
        for name, points in curves.items():
            x = [point.scores.fa_per_24h for point in points]
            y = [point.scores.sensitivity for point in points]
            colour = MODEL_COLOURS.get(name, MUTED)
            ax.plot(x, y, color=colour, lw=1.3, marker=".", ms=5, label=_entry(name))
        ax.set(xlabel="false alarms / 24 h", ylabel="sensitivity", ylim=(-0.03, 1.03))
        ax.set_xscale("symlog", linthresh=1.0)
        # The axis's own labels are formulas, which no figure reads.
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlim(left=-0.1)
        ax.grid()
        ax.legend(loc="lower right")
        return to_svg(figure, "operating curve")


def weights_svg(
    weights: Mapping[str, Weights], class_names: Sequence[str], *, name: str
) -> str:
    """Draws weights by class over weights by update, one column per model."""
    with mpl.rc_context(STYLE):
        num = len(weights)
        most = max(len(one.names) for one in weights.values())
        height = 1.1 + 0.24 * most
        figure, axes = make_figure(
            max(4.8, 3.2 * num), height + 2.4, 2, num, height_ratios=[height, 2.4]
        )
        for i, (model, one) in enumerate(weights.items()):
            _by_class(axes[0, i], one, class_names)
            _by_update(axes[1, i], one)
            axes[0, i].set_title(plain(model, 24), loc="left", weight="bold")
        axes[1, 0].set_ylabel("mean weight")
        return to_svg(figure, name)


def _by_class(ax: Axes, weights: Weights, class_names: Sequence[str]) -> None:
    means = weights.by_class
    num_names, num_classes = means.shape
    ax.pcolormesh(means, cmap=_SHARES, vmin=0, vmax=1, edgecolors="w", lw=2)
    for i, j in np.ndindex(num_names, num_classes):
        colour = "white" if means[i, j] > 0.62 else INK
        text = f"{means[i, j]:.2f}" if np.isfinite(means[i, j]) else "–"
        place = {"ha": "center", "va": "center", "fontsize": 8}
        ax.text(j + 0.5, i + 0.5, text, color=colour, **place)
    short = [plain(name, 12) for name in class_names]
    ax.set_xticks(
        np.arange(num_classes) + 0.5, short[:num_classes], rotation=30, ha="right"
    )
    names = [plain(name, _LONGEST) for name in weights.names]
    ax.set_yticks(np.arange(num_names) + 0.5, names)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def _by_update(ax: Axes, weights: Weights) -> None:
    """Draws training subjects' weights dashed, validation subjects' solid."""
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(weights.names)))
    for i, (label, colour) in enumerate(zip(weights.names, colours, strict=True)):
        # Dots make a single evaluation visible.
        style = {"color": colour, "marker": ".", "ms": 4}
        ax.plot(weights.step, weights.train[:, i], lw=0.9, ls="--", **style)
        ax.plot(weights.step, weights.val[:, i], lw=1.3, label=_entry(label), **style)
    ax.set(xlabel="update", ylim=(-0.03, 1.03))
    ax.grid(axis="y")
    if np.isfinite(weights.entropy[-1]):
        text = (
            f"entropy {weights.entropy[-1]:.2f} nats\n"
            f"variance over windows {weights.variance[-1]:.3f}"
        )
        ax.set_title(text, loc="left", fontsize=8, color=MUTED)
    if len(weights.names) <= 8:
        ax.legend(ncols=2, fontsize=7, handlelength=1.2)
