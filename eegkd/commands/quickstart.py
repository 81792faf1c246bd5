"""`eegkd quickstart`: the whole of distillation on synthetic patients, in minutes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from eegkd.commands import distill
from eegkd.commands.options import parse, take_option
from eegkd.config import preset_config
from eegkd.systems.entry import find


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Train a teacher, distil a student, judge both, on synthetic patients.

    `--resume RUN`, alone, goes on with one that was stopped.

    Attributes:
        world: transfer: the teacher saw more patients than the student has labels
            for. null: it knows nothing extra, and the verdict should say so.
        seed: Seed of patients and training.
        out: The run folder; empty: runs/quickstart-WORLD-sSEED.
        epochs: Passes over the training windows, of the student and of the teacher; 0
            is the preset's.
    """

    world: Literal["transfer", "null"] = "transfer"
    seed: int = 0
    out: str = ""
    epochs: int = 0


def main(args: Sequence[str]) -> None:
    """Runs the verb."""
    folder, rest = take_option(args, "resume")
    if folder is not None:
        distill.main(["--resume", folder, *rest])
        return
    options = parse(Quickstart, args, "quickstart")
    entry = find("distilclip_eeg")
    config = preset_config(entry, "quickstart")
    out = options.out or str(
        Path("runs") / f"quickstart-{options.world}-s{options.seed}"
    )
    config = dataclasses.replace(
        config,
        seed=options.seed,
        out=out,
        data=dataclasses.replace(
            config.data, world=options.world, seed=options.seed, workers=1
        ),
    )
    if options.epochs:
        epochs = {"epochs": options.epochs, "teacher_epochs": options.epochs}
        train = dataclasses.replace(config.train, **epochs)
        config = dataclasses.replace(config, train=train)
    distill.run(entry, config)
