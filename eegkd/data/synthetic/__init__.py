"""Synthetic recordings with a known Bayes posterior: the data inside the package."""

import functools
from pathlib import Path

from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus, Source
from eegkd.data.recording import Recording
from eegkd.data.synthetic import seizure
from eegkd.data.synthetic.seizure import (
    CHANNELS,
    CLASSES,
    RATE,
    WINDOW_S,
    WORLDS,
    bayes_accuracy,
    make_recording,
)

__all__ = ["CHANNELS", "CLASSES", "WORLDS", "bayes_accuracy", "make_recording"]


def _list(world: str, seed: int, root: Path) -> tuple[Source, ...]:
    return tuple(
        Source(
            recording_id=f"{world}-{seed}-{subject}",
            # The generator is the file: a change of it makes another store.
            path=Path(seizure.__file__),
            subject=subject,
            info={"world": world, "seed": seed},
        )
        for subject in WORLDS[world].subjects
    )


def _read(source: Source) -> Recording:
    world = WORLDS[source.info["world"]]
    return make_recording(world, source.subject, seed=source.info["seed"])


def _facts(world: str, seed: int) -> dict[str, dict[str, float]]:
    known = WORLDS[world]
    accuracy, _ = bayes_accuracy(known, known.split["test"], seed=seed)
    return {"bayes": {"accuracy": accuracy}}


def make_corpus(config: DataConfig) -> Corpus:
    """Returns the corpus of one world and seed (`--data.world`, `--data.seed`)."""
    world = WORLDS[config.world]
    return Corpus(
        name="synthetic",
        classes=CLASSES,
        background="background",
        list_sources=functools.partial(_list, config.world, config.seed),
        read=_read,
        defaults={
            "channels": CHANNELS,
            "rate": RATE,
            "band": (0.5, 40.0),
            "notch": 0.0,
            "window_s": WINDOW_S,
            "overlap": 0.0,
        },
        fixed_split=lambda subjects: world.split,
        student_subjects=world.student_subjects,
        licence="generated",
        facts=functools.partial(_facts, config.world, config.seed),
    )
