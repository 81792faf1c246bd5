"""Synthetic recordings with a known Bayes posterior: the data inside the package."""

import functools
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus, Source
from eegkd.data.recordings.recording import Recording
from eegkd.data.synthetic import layered, seizure
from eegkd.data.synthetic.patients import Patients

__all__ = ["WORLDS", "Patients", "bayes_accuracy", "make_recording"]

_GENERATORS: Mapping[str, ModuleType] = {
    name: module for module in (seizure, layered) for name in module.WORLDS
}
WORLDS: Mapping[str, Patients] = {**seizure.WORLDS, **layered.WORLDS}
"""By the name that `--data.world` takes."""


def make_recording(world: str, subject: str, *, seed: int = 0) -> Recording:
    """Draws one patient of a world."""
    return _GENERATORS[world].make_recording(WORLDS[world], subject, seed=seed)


def bayes_accuracy(
    world: str, subjects: tuple[str, ...], *, seed: int = 0
) -> tuple[float, float]:
    """Returns the accuracy of the Bayes classifier on some patients, and its error."""
    return _GENERATORS[world].bayes_accuracy(WORLDS[world], subjects, seed=seed)


def _list(world: str, seed: int, root: Path) -> tuple[Source, ...]:
    file = _GENERATORS[world].__file__
    return tuple(
        Source(
            recording_id=f"{world}-{seed}-{subject}",
            # The generator is the file: a change of it makes another store.
            path=Path(str(file)),
            subject=subject,
            info={"world": world, "seed": seed},
        )
        for subject in WORLDS[world].subjects
    )


def _read(source: Source) -> Recording:
    info = source.info
    return make_recording(info["world"], source.subject, seed=info["seed"])


def _facts(world: str, seed: int) -> dict[str, dict[str, float]]:
    accuracy, _ = bayes_accuracy(world, WORLDS[world].split["test"], seed=seed)
    return {"bayes": {"accuracy": accuracy}}


def make_corpus(config: DataConfig) -> Corpus:
    """Returns the corpus of one world and seed (`--data.world`, `--data.seed`)."""
    name, seed = config.world, config.seed
    world, module = WORLDS[name], _GENERATORS[name]
    return Corpus(
        name="synthetic",
        classes=module.CLASSES,
        background=module.BACKGROUND,
        list_sources=functools.partial(_list, name, seed),
        read=_read,
        defaults={
            "channels": module.CHANNELS,
            "rate": module.RATE,
            "band": module.BAND,
            "notch": 0.0,
            "window_s": module.WINDOW_S,
            "overlap": 0.0,
        },
        fixed_split=lambda subjects: world.split,
        student_subjects=world.student_subjects,
        licence="generated",
        facts=functools.partial(_facts, name, seed),
    )
