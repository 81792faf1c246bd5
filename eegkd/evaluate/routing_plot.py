"""The figure of a router: what weight each layer of a teacher has."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from eegkd.evaluate.figure import BLUE, INK, MUTED, STYLE, make_figure, to_svg
from eegkd.evaluate.measured import Routing

_SHARES = LinearSegmentedColormap.from_list("share", ["#f5f8fb", "#9dbfde", BLUE])


def routing_svg(routings: Mapping[str, Routing], class_names: Sequence[str]) -> str:
    """Draws weights a layer and a class over weights by update, a column a model."""
    with mpl.rc_context(STYLE):
        num = len(routings)
        layers = max(len(routing.layers) for routing in routings.values())
        height = 1.1 + 0.24 * layers
        figure, axes = make_figure(
            max(4.8, 3.2 * num), height + 2.4, 2, num, height_ratios=[height, 2.4]
        )
        for i, (name, routing) in enumerate(routings.items()):
            _by_class(axes[0, i], routing, class_names)
            _by_update(axes[1, i], routing)
            axes[0, i].set_title(name, loc="left", weight="bold")
        axes[1, 0].set_ylabel("mean weight")
        return to_svg(figure, "weights of the teacher's layers")


def _by_class(ax: Axes, routing: Routing, class_names: Sequence[str]) -> None:
    weights = routing.by_class
    num_layers, num_classes = weights.shape
    ax.pcolormesh(weights, cmap=_SHARES, vmin=0, vmax=1, edgecolors="w", lw=2)
    for i, j in np.ndindex(num_layers, num_classes):
        colour = "white" if weights[i, j] > 0.62 else INK
        text = f"{weights[i, j]:.2f}" if np.isfinite(weights[i, j]) else "–"
        place = {"ha": "center", "va": "center", "fontsize": 8}
        ax.text(j + 0.5, i + 0.5, text, color=colour, **place)
    short = [name if len(name) <= 12 else f"{name[:11]}…" for name in class_names]
    ax.set_xticks(
        np.arange(num_classes) + 0.5, short[:num_classes], rotation=30, ha="right"
    )
    ax.set_yticks(np.arange(num_layers) + 0.5, routing.layers)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def _by_update(ax: Axes, routing: Routing) -> None:
    """Draws training subjects' weights dashed, validation subjects' whole."""
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(routing.layers)))
    for i, (layer, colour) in enumerate(zip(routing.layers, colours, strict=True)):
        # With dots, one evaluation alone can be seen.
        style = {"color": colour, "marker": ".", "ms": 4}
        ax.plot(routing.step, routing.train[:, i], lw=0.9, ls="--", **style)
        ax.plot(routing.step, routing.val[:, i], lw=1.3, label=layer, **style)
    ax.set(xlabel="update", ylim=(-0.03, 1.03))
    ax.grid(axis="y")
    text = (
        f"entropy {routing.entropy[-1]:.2f} nats\n"
        f"variance over windows {routing.variance[-1]:.3f}"
    )
    ax.set_title(text, loc="left", fontsize=8, color=MUTED)
    if len(routing.layers) <= 8:
        ax.legend(ncols=2, fontsize=7, handlelength=1.2)
