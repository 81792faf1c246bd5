"""The systems that the command line knows, with their options and presets."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from eegkd.config import QUICK_ROWS, RunConfig, TrainConfig
from eegkd.data.config import DataConfig
from eegkd.errors import InputError, suggest
from eegkd.models import ConformerConfig
from eegkd.systems import System, distilclip_eeg, dlink
from eegkd.systems.distilclip_eeg.config import PRESETS as DISTILCLIP
from eegkd.systems.distilclip_eeg.config import (
    DistilClipConfig,
    ProjConfig,
    StudentConfig,
    TextConfig,
)
from eegkd.systems.distilclip_eeg.text import text_notes
from eegkd.systems.dlink import system as dlink_system
from eegkd.systems.dlink.config import PRESETS as DLINK
from eegkd.systems.dlink.config import DlinkConfig
from eegkd.train.optimiser import OptimConfig


class Entry(NamedTuple):
    """One system: how it is made, and its options.

    Attributes:
        make_system: `config -> System`.
        config: Type of its options.
        presets: Options by name.
        deployed: `config -> config` that predicts the same with finished variables,
            and names no file that only training reads.
        notes: `config -> sentences` that the report's reader must not miss.
        weights: `config -> {model: file}` of published weights that training starts
            from.
    """

    make_system: Callable[[Any], System]
    config: type
    presets: Mapping[str, Any]
    deployed: Callable[[Any], Any] = lambda config: config
    notes: Callable[[Any], Sequence[str]] = lambda config: ()
    weights: Callable[[Any], Mapping[str, str]] = lambda config: {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilClipRun(RunConfig, DistilClipConfig):
    """A run of DistilCLIP-EEG."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DlinkRun(RunConfig, DlinkConfig):
    """A run of DLink."""


def _run(run: type, system: Any, **changes: Any) -> Any:
    """Joins a system's options with those of a run."""
    fields = {f.name: getattr(system, f.name) for f in dataclasses.fields(system)}
    return run(**(fields | changes))


def _without_text(config: DistilClipRun) -> DistilClipRun:
    """Finished stages hold their class vectors: no text and no BERT is read."""
    if config.text.source == "none":
        return config
    text = TextConfig(source="random_class_vectors")
    return dataclasses.replace(config, text=text)


def _bert_weights(config: DistilClipRun) -> Mapping[str, str]:
    return {"bert": config.text.bert} if config.text.bert else {}


def _teacher_weights(config: DlinkRun) -> Mapping[str, str]:
    teacher = config.teacher
    return {teacher.name: teacher.weights} if teacher.weights else {}


SYSTEMS: Mapping[str, Entry] = {
    "distilclip_eeg": Entry(
        distilclip_eeg.make_system,
        DistilClipRun,
        {
            "paper": _run(DistilClipRun, DISTILCLIP["paper"]),
            "tpu": _run(DistilClipRun, DISTILCLIP["tpu"]),
            "small": _run(
                DistilClipRun,
                DISTILCLIP["small"],
                num_seeds=5,
                # Half the tokens of 200 Hz: minutes instead of hours on a CPU.
                data=DataConfig(rate=100.0, band=(0.5, 40.0)),
                train=TrainConfig(epochs=20, batch_size=64),
                optim=OptimConfig(learning_rate=1e-3),
            ),
            "quickstart": _run(
                DistilClipRun,
                DISTILCLIP["small"],
                eeg=ConformerConfig(
                    dim=64, depth=4, ffn_mult=2, num_heads=4, stem_kernels=(15, 5)
                ),
                text=TextConfig(dim=64, depth=2, num_heads=4, num_prompts=4),
                proj=ProjConfig(dim=64),
                student=StudentConfig(depth=2),
                split="fixed",
                num_seeds=2,
                rows=QUICK_ROWS,
                data=DataConfig(corpus="synthetic"),
                train=TrainConfig(epochs=5, batch_size=64, quick_compile=True),
                optim=OptimConfig(learning_rate=1e-3),
            ),
        },
        _without_text,
        text_notes,
        _bert_weights,
    ),
    "dlink": Entry(
        dlink.make_system,
        DlinkRun,
        {
            "paper": _run(
                DlinkRun,
                DLINK["paper"],
                data=DataConfig(rate=200.0, zscore="none"),
                train=TrainConfig(epochs=100, teacher_epochs=50, batch_size=64),
                optim=OptimConfig(
                    learning_rate=1e-3,
                    teacher_learning_rate=1e-4,
                    head_scale=5.0,
                    final_rate=1e-6,
                    warmup_fraction=0.0,
                ),
            ),
            # Its published fine-tuning is for batches of 512.
            "labram": _run(
                DlinkRun,
                DLINK["labram"],
                data=DataConfig(rate=200.0, zscore="none"),
                train=TrainConfig(epochs=100, teacher_epochs=50, batch_size=64),
                optim=OptimConfig(
                    learning_rate=1e-3,
                    teacher_learning_rate=5e-4,
                    layer_decay=0.65,
                    final_rate=1e-6,
                    warmup_fraction=0.1,
                ),
            ),
            "small": _run(
                DlinkRun,
                DLINK["small"],
                data=DataConfig(rate=200.0, zscore="none"),
                train=TrainConfig(epochs=20, batch_size=64),
                optim=OptimConfig(learning_rate=1e-3),
            ),
        },
        dlink_system.deployed,
        weights=_teacher_weights,
    ),
}


def get_entry(name: str) -> Entry:
    """Returns a system by its name.

    Raises:
        InputError: If there is none.
    """
    if name not in SYSTEMS:
        raise InputError(
            f"There is no system {name!r}: choose {', '.join(SYSTEMS)}."
            f"{suggest(name, SYSTEMS)}"
        )
    return SYSTEMS[name]


def get_preset(entry: Entry, name: str) -> Any:
    """Returns a preset's options.

    Raises:
        InputError: If there is none.
    """
    if name not in entry.presets:
        choices = ", ".join(entry.presets)
        raise InputError(f"There is no preset {name!r}: choose {choices}.")
    return entry.presets[name]
