"""Cutting a recording into labelled windows, with the options settled."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus
from eegkd.data.recordings.montage import EARS
from eegkd.data.recordings.names import is_electrode
from eegkd.data.recordings.preprocess import Reference, preprocess
from eegkd.data.recordings.recording import Recording, Unit
from eegkd.data.windows.labels import (
    cover,
    label_windows,
    name_of,
    own_cover,
    touched_windows,
)
from eegkd.errors import InputError


class Windows(NamedTuple):
    """Windows of one recording, in time order.

    Attributes:
        signal: `f32[n, c, t]`.
        start_s: `f64[n]`, seconds from the recording's start.
        label: `i32[n]`, -1 unlabelled; or `i32[n, k]`, 0 or 1, and -1 not asked.
        on_grid: `bool[n]`: starts at a multiple of the window length.
        left_out: `bool[n]` by reason: windows that are unlabelled because a bad span of
            the recording touches them.
        scale: `f32[n, c]`, what a z-score divided each channel by, in its unit; None
            where none did.
    """

    signal: np.ndarray
    start_s: np.ndarray
    label: np.ndarray
    on_grid: np.ndarray
    left_out: Mapping[str, np.ndarray] = {}
    scale: np.ndarray | None = None


def cut_windows(
    recording: Recording,
    *,
    window_s: float,
    overlap: float,
    classes: Sequence[str],
    background: str | None,
    positive_fraction: float,
    multilabel: bool = False,
) -> Windows:
    """Cuts windows at the overlapping hop and labels each by the events it covers.

    Starts are whole samples: the multiples of the hop, and those of the window length
    (the grid) where the hop does not divide it, so that judging always sees every
    stretch of the recording once. A rest shorter than a window is left out.

    A window's label is the class whose events cover most of it, if they cover at least
    `positive_fraction` of the window: so a window inside a long seizure is positive
    however small its share of the seizure. Events of one class that touch or overlap
    count once. On a tie the later of `classes` wins. Otherwise the label is
    `background`, or -1 if that is None. A stretch marked `UNLABELLED` counts like a
    class that yields -1 and loses every tie. A window that one of `bad_spans` touches
    is -1 whatever covers it.

    With `multilabel` a label is a row over the classes, each judged by itself: 1 where
    its events cover at least `positive_fraction` of the window, else -1 where a stretch
    marked `UNLABELLED`, or `not_asked` for this class, does, else 0.

    Args:
        recording: Signals and events.
        window_s: Window length; rounded to whole samples.
        overlap: Share of a window that the next one repeats, in [0, 1).
        classes: Label names; a label is an index into them.
        background: The class of windows outside every event, or None.
        positive_fraction: Least share of a window, in (0, 1].
        multilabel: Give a window every class that covers enough of it.

    Raises:
        InputError: If the recording is shorter than a window, or has an event whose
            label is not in `classes`.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"--data.overlap must be in [0, 1), got {overlap}.")
    num_samples = recording.signal.shape[1]
    length = round(window_s * recording.rate)
    if length < 1 or num_samples < length:
        raise InputError(
            f"{name_of(recording)}: no window of {window_s:g} s fits into "
            f"{recording.duration_s:g} s. Lower --data.window_s or leave the file out."
        )
    hop = max(1, round(length * (1 - overlap)))
    last = num_samples - length
    starts = np.union1d(np.arange(0, last + 1, hop), np.arange(0, last + 1, length))
    windows = Windows(
        signal=_slices(recording, starts, length),
        start_s=starts / recording.rate,
        label=label_windows(
            recording,
            starts,
            length,
            classes,
            background,
            positive_fraction,
            multilabel,
            cover,
        ),
        on_grid=starts % length == 0,
    )
    return _leave_out(windows, recording, starts, length)


def cut_trials(
    recording: Recording,
    *,
    window_s: float,
    classes: Sequence[str],
    positive_fraction: float,
    multilabel: bool = False,
) -> Windows:
    """Cuts one window per event, from its onset on; all are judged.

    A trial that the recording cuts off is left out. A window's label is that of its own
    event, however many others begin inside it, if that covers at least
    `positive_fraction` of the window; with `multilabel` it is as in `cut_windows`.

    Args:
        recording: Signals and events.
        window_s: Window length; rounded to whole samples.
        classes: Label names; a label is an index into them.
        positive_fraction: Least share of a window, in (0, 1].
        multilabel: As in `cut_windows`.

    Raises:
        InputError: If no trial is left, or its label is not in `classes`.
    """
    length = round(window_s * recording.rate)
    last = recording.signal.shape[1] - length
    onsets = {round(event.onset_s * recording.rate) for event in recording.events}
    starts = np.array(sorted(x for x in onsets if 0 <= x <= last), np.int64)
    if length < 1 or not len(starts):
        raise InputError(
            f"{name_of(recording)}: none of its {len(onsets)} trials holds a window of "
            f"{window_s:g} s. Lower --data.window_s or leave the file out."
        )
    windows = Windows(
        signal=_slices(recording, starts, length),
        start_s=starts / recording.rate,
        label=label_windows(
            recording,
            starts,
            length,
            classes,
            None,
            positive_fraction,
            multilabel,
            cover if multilabel else own_cover,
        ),
        on_grid=np.ones(len(starts), bool),
    )
    return _leave_out(windows, recording, starts, length)


def _slices(recording: Recording, starts: np.ndarray, length: int) -> np.ndarray:
    views = np.lib.stride_tricks.sliding_window_view(recording.signal, length, axis=1)
    return np.ascontiguousarray(views.transpose(1, 0, 2)[starts], dtype=np.float32)


def _leave_out(
    windows: Windows, recording: Recording, starts: np.ndarray, length: int
) -> Windows:
    """Unlabels the windows that a bad span of the recording touches."""
    touched = touched_windows(recording, starts, length)
    if not touched:
        return windows
    label = windows.label.copy()
    label[np.any(list(touched.values()), axis=0)] = -1
    return windows._replace(label=label, left_out=touched)


def zscore_windows(windows: Windows, recording: Recording) -> Windows:
    """Returns the windows with every channel at mean 0 and standard deviation 1.

    A missing channel that the user had masked with zeros stays zero, and so does a
    channel that is flat in a window which is left out.

    Raises:
        InputError: If a channel is flat in another window, or half of the windows are
            left out: its standard deviation is under a millionth of a unit and of the
            channel's own over the recording. Noise that small is rounding, and
            dividing by it would make it a signal.
    """
    x = windows.signal - windows.signal.mean(axis=2, keepdims=True)
    std = np.sqrt(np.einsum("nct,nct->nc", x, x) / x.shape[2])
    floor = 1e-6 * np.maximum(1, recording.signal.std(axis=1))
    flat = std <= floor
    wrong = flat & ~np.isin(recording.channels, recording.filled)
    left_out = np.any([*windows.left_out.values(), np.zeros(len(x), bool)], axis=0)
    if 2 * left_out.sum() < len(x):
        wrong &= ~left_out[:, None]
    if wrong.any():
        row, channel = np.argwhere(wrong)[0]
        raise InputError(
            f"{name_of(recording)}: channel {recording.channels[channel]} is flat in "
            f"the window at {windows.start_s[row]:g} s. Leave out the channel "
            "(--data.channels) or the file, or use --data.zscore recording."
        )
    scale = np.where(flat, 1, std)
    x /= scale[..., None]
    return windows._replace(signal=x, scale=scale)


GENERAL: Mapping[str, Any] = {
    "montage": "referential",
    "rate": 200.0,
    "band": (0.5, 70.0),
    "notch": 0.0,
    "window_s": 4.0,
    "overlap": 0.0,
}
"""Options where neither the user nor the corpus gives any."""


def resolve_config(config: DataConfig, corpus: Corpus) -> DataConfig:
    """Fills open options from the corpus, then from `GENERAL`.

    Raises:
        InputError: If windows of trials were to overlap, or windows that are cut
            already to be changed.
    """
    defaults = {**GENERAL, **corpus.defaults}
    if corpus.trials and config.overlap:
        raise InputError(
            f"--data.overlap {config.overlap:g}: {corpus.name} has one window a trial; "
            "leave the option out."
        )
    for name in corpus.fixed:
        if getattr(config, name) not in (None, (), defaults[name]):
            raise InputError(
                f"--data.{name} {getattr(config, name)}: the windows of {corpus.name} "
                f"are cut already, and it is {defaults[name]} in them. Leave the "
                "option out, or prepare the recordings they were cut from."
            )
    chosen = {
        name: value
        for name, value in defaults.items()
        if getattr(config, name) in (None, ())
    }
    return dataclasses.replace(config, **chosen)


def window_recording(
    raw: Recording,
    config: DataConfig,
    *,
    classes: Sequence[str] = (),
    background: str | None = None,
    trials: bool = False,
    reference: Reference | None = None,
    multilabel: bool = False,
) -> tuple[Windows, Recording]:
    """Preprocesses and cuts one recording as for a store.

    Args:
        raw: Recording as read; without `classes` its events are ignored.
        config: Resolved options, from `resolve_config` or `config_of`.
        classes: Label names.
        background: The class of windows outside every event.
        trials: Cut one window per event.
        reference: Electrodes to average, for `preprocess`.
        multilabel: Give a window every class that covers enough of it.

    Returns:
        The windows, and the preprocessed recording they were cut from.
    """
    recording = preprocess(raw, config, reference)
    length = config.window_s or GENERAL["window_s"]
    if trials:
        windows = cut_trials(
            recording,
            window_s=length,
            classes=classes,
            positive_fraction=config.positive_fraction,
            multilabel=multilabel,
        )
    else:
        windows = cut_windows(
            recording if classes else dataclasses.replace(recording, events=()),
            window_s=length,
            overlap=config.overlap or 0.0,
            classes=classes,
            background=background,
            positive_fraction=config.positive_fraction,
            multilabel=multilabel,
        )
    if config.zscore == "window":
        windows = zscore_windows(windows, recording)
        units: tuple[Unit, ...] = ("zscore",) * len(recording.units)
        recording = dataclasses.replace(recording, units=units)
    elif recording.origin and recording.origin.scale:
        scale = np.asarray(recording.origin.scale, np.float32)
        scale = np.broadcast_to(scale, windows.signal.shape[:2])
        windows = windows._replace(scale=scale)
    return windows, recording


def config_of(manifest: Mapping[str, Any]) -> DataConfig:
    """Returns the resolved options that a store was prepared with."""
    names = {field.name for field in dataclasses.fields(DataConfig)}
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in manifest["preprocessing"].items()
        if name in names
    }
    return DataConfig(**settings, corpus=manifest["corpus"])


def reference_of(manifest: Mapping[str, Any]) -> Reference | None:
    """Returns the electrodes that a store's recordings were averaged over, if any.

    Stores that name none were averaged over the channels that they kept.
    """
    if manifest["preprocessing"].get("montage") != "average":
        return None
    if "reference" not in manifest:
        kept = tuple(manifest["channels"])
        always = tuple(n for n in kept if is_electrode(n) and n not in EARS)
        return Reference(kept, always)
    electrodes = tuple(manifest["reference"])
    records = manifest["recordings"].values()
    lost = {name for record in records for name in record["not_in_reference"]}
    return Reference(electrodes, tuple(n for n in electrodes if n not in lost))
