"""Synthetic patients of one world and seed: `--data.world`, `--data.seed`."""

import functools
from pathlib import Path

from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus, Source
from eegkd.data.recordings.recording import Recording
from eegkd.data.synthetic import GENERATORS, WORLDS, bayes_accuracy, make_recording


def make_corpus(config: DataConfig) -> Corpus:
    """Returns the corpus of `config.world` and `config.seed`."""
    name, seed = config.world, config.seed
    world, module = WORLDS[name], GENERATORS[name]
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
            "window_s": module.WINDOW_S,
        },
        fixed_split=lambda subjects: world.split,
        student_subjects=world.student_subjects,
        licence="generated",
        facts=functools.partial(_facts, name, seed),
        options=("world", "seed"),
        needs_root=False,
    )


def _list(world: str, seed: int, root: Path) -> tuple[Source, ...]:
    file = GENERATORS[world].__file__
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
