"""The figure of one recording: traces, true events and predictions."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from eegkd.evaluate.events import Detection, WindowTrack, timeline, to_spans
from eegkd.evaluate.report.figure import (
    BLUE,
    INK,
    MUTED,
    RED,
    STYLE,
    make_figure,
    to_png,
)
from eegkd.host.atomic import write_atomic
from eegkd.host.text import plain

MAX_CHANNELS = 19
_COLUMNS = 1500


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


def _traces(
    signal: Float[np.ndarray, "c t"], rate: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns times, and each channel's envelope on one scale, cut at 0.7.

    Channel by channel: float64 copies of hours of all channels would not fit.
    """

    def centred(row: np.ndarray) -> np.ndarray:
        x = np.asarray(row, np.float64)
        return x - np.median(x)

    spread = np.array([np.percentile(np.abs(centred(row)), 99) for row in signal])
    scale = float(np.median(spread[spread > 0])) if np.any(spread > 0) else 1.0
    times, traces = np.zeros(0), []
    for row in signal:
        cut = np.clip(centred(row) / (2.2 * scale), -0.7, 0.7)
        times, trace = _envelope(cut[None], rate)
        traces.append(trace[0])
    return times, traces


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
    note: str = "",
) -> Figure:
    """Draws traces over the probability of an event, with true and detected events.

    Up to 19 channels, each about its own median, on one scale; a channel with a NaN is
    left blank. `note` is what a reader must not miss, above the traces.
    """
    shown = min(len(channels), MAX_CHANNELS)
    times, traces = _traces(signal[:shown], rate)
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
        names = [plain(name, 16) for name in channels[:shown]]
        top.set_yticks(-np.arange(shown), names, fontsize=8)
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
        title = plain(title, 90)
        if shown < len(channels):
            title = f"{title} ({shown} of {len(channels)} channels)".strip()
        if note:
            where = {"transform": top.transAxes, "va": "bottom"}
            top.text(0.0, 1.01, note, color=RED, fontsize=8.5, **where)
            title = f"{title}\n"
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
