"""One recording from read to windows, with the options settled."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus
from eegkd.data.preprocess import preprocess
from eegkd.data.recording import Recording, Unit
from eegkd.data.windows import Windows, cut_trials, cut_windows, zscore_windows
from eegkd.errors import InputError

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
    """Fills what the user left open from the corpus, then from `GENERAL`.

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
) -> tuple[Windows, Recording]:
    """Preprocesses and cuts one recording, as it would be for a store.

    Args:
        raw: As read; without `classes` its events are left aside.
        config: Resolved, as by `resolve_config` or `config_of`.
        classes: Label names.
        background: The class of windows outside every event.
        trials: Cut one window an event.

    Returns:
        The windows, and the preprocessed recording they were cut from.
    """
    recording = preprocess(raw, config)
    length = config.window_s or GENERAL["window_s"]
    if trials:
        windows = cut_trials(
            recording,
            window_s=length,
            classes=classes,
            positive_fraction=config.positive_fraction,
        )
    else:
        windows = cut_windows(
            recording if classes else dataclasses.replace(recording, events=()),
            window_s=length,
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
