"""One recording from read to windows, with the options settled."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus
from eegkd.data.preprocess import preprocess
from eegkd.data.recording import Recording, Unit
from eegkd.data.windows import Windows, cut_windows, zscore_windows

GENERAL: Mapping[str, Any] = {
    "montage": "referential",
    "rate": 200.0,
    "band": (0.5, 70.0),
    "notch": 0.0,
    "window_s": 4.0,
    "overlap": 0.0,
}
"""Where neither the user nor the corpus says anything."""


def resolve_config(config: DataConfig, corpus: Corpus) -> DataConfig:
    """Fills what the user left open from the corpus, then from `GENERAL`."""
    chosen = {
        name: value
        for name, value in {**GENERAL, **corpus.defaults}.items()
        if getattr(config, name) in (None, ())
    }
    return dataclasses.replace(config, **chosen)


def window_recording(
    raw: Recording,
    config: DataConfig,
    *,
    classes: Sequence[str] = (),
    background: str | None = None,
) -> tuple[Windows, Recording]:
    """Preprocesses and cuts one recording, as it would be for a store.

    Args:
        raw: As read; without `classes` its events are left aside.
        config: Resolved, as by `resolve_config` or `config_of`.
        classes: Label names.
        background: The class of windows outside every event.

    Returns:
        The windows, and the preprocessed recording they were cut from.
    """
    recording = preprocess(raw, config)
    windows = cut_windows(
        recording if classes else dataclasses.replace(recording, events=()),
        window_s=config.window_s or GENERAL["window_s"],
        overlap=config.overlap or 0.0,
        classes=classes,
        background=background,
        positive_fraction=config.positive_fraction,
    )
    if config.zscore == "window":
        windows = zscore_windows(windows, recording)
        units: tuple[Unit, ...] = ("zscore",) * len(recording.units)
        recording = dataclasses.replace(recording, units=units)
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
