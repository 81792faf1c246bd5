"""Options of a run, whatever the system."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from eegkd.cache.config import CacheConfig
from eegkd.data.batches.augment import AugmentConfig
from eegkd.data.config import DataConfig
from eegkd.errors import InputError, suggest
from eegkd.evaluate.events import EventsConfig
from eegkd.host.paths import PathText
from eegkd.systems import Stage, SystemConfig
from eegkd.systems.entry import Entry, check_preset
from eegkd.train.optimiser import OptimConfig

__all__ = [
    "PLACEMENT",
    "ROWS",
    "RunConfig",
    "TrainConfig",
    "num_steps",
    "override",
    "preset_config",
    "run_config",
    "stage_config",
]


def __dir__() -> list[str]:
    return list(__all__)


ROWS = ("alpha_0", "no_teacher", "shuffled_teacher", "small_net", "linear",
        "within_class_shuffle", "class_mean_teacher", "a_a")  # fmt: skip
"""Controls and baselines that every system has."""

MOST_SEED = 2**32


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop.

    Attributes:
        epochs: Passes over the training windows.
        teacher_epochs: Passes for stages before the student; 0: as many.
        batch_size: Global batch size.
        sampler: Draw all classes equally often, or all windows.
        runner: How devices share a step; auto is one device, or shard_map on several.
        devices: Number of devices, over all processes; 0 is all.
        processes: Number of processes that share a step, each with its part of the
            batch and of the devices. They are started on this machine, unless
            `--coordinator HOST:PORT --process_id K`, or `--coordinator auto` on a
            cluster, makes this command one of them.
        model_axis: Devices that share examples, and parameters, under mesh.
        fully_sharded: Cut parameters and optimiser over all devices, under mesh.
        accumulate: Micro-batches per step.
        held_out: Share of those training subjects whose labels the student may use that
            no stage before it is trained on. DLink's router then learns its probe from
            them alone: of subjects that the teacher was tuned on, the last layers know
            the labels almost by heart. 0 holds out none.
        labelled_people: Training subjects of a fold whose labels the student, and the
            rows without a teacher, may use: those that the corpus names first. 0 leaves
            it to the corpus.
        labelled_share: Least share of a student's batches, and of its controls', that
            has labels: windows with labels are drawn so much oftener than others. 0
            draws all equally often. The row small_net reads no others anyway.
        balance: Scaling of a stage's terms against each other, besides their weights:
            none (fixed), a learned variance for each (uncertainty), or equal gradient
            norms (gradnorm; one pass back through the model per term). A stage with one
            term, as of the row no_teacher, has nothing to balance.
        sweep: Train seeds and controls of one structure together: in one program
            (vmap), side by side in threads, or one after another (sequential). auto:
            vmap on a GPU or TPU, as many as fit; threads on a CPU, for small models.
        teacher: Keep the teacher's outputs in memory, cache them on disk, or compute
            them in every step. auto is memory up to 2 GiB, then disk up to
            --cache.limit_gb.
        workers: Processes that make batches; 0 reads in threads.
        save_every_s: Seconds between checkpoints.
        max_steps: Stop every training after so many updates; 0 is no limit.
        quick_compile: On a CPU, compile faster to slower programs, for small models
            and a few hundred updates.
    """

    epochs: int = 50
    teacher_epochs: int = 0
    batch_size: int = 128
    sampler: Literal["balanced", "natural"] = "balanced"
    runner: Literal["auto", "single", "pmap", "shard_map", "mesh"] = "auto"
    devices: int = 0
    processes: int = 1
    model_axis: int = 1
    fully_sharded: bool = False
    accumulate: int = 1
    held_out: float = 0.0
    labelled_people: int = 0
    labelled_share: float = 0.0
    balance: Literal["fixed", "uncertainty", "gradnorm"] = "fixed"
    sweep: Literal["auto", "sequential", "threads", "vmap"] = "auto"
    teacher: Literal["auto", "memory", "cached", "online"] = "auto"
    workers: int = 0
    save_every_s: float = 60.0
    max_steps: int = 0
    quick_compile: bool = False

    def __post_init__(self) -> None:
        """Checks the numbers of devices, the share held out and that of labels."""
        if not 0 <= self.held_out < 1:
            raise ValueError(f"train.held_out is in [0, 1); got {self.held_out}.")
        if not 0 <= self.labelled_share < 1 or self.labelled_people < 0:
            raise ValueError(
                "train.labelled_share is in [0, 1), and train.labelled_people not "
                f"below 0; got {self.labelled_share} and {self.labelled_people}."
            )
        if self.processes < 1 or self.devices < 0 or self.model_axis < 1:
            raise ValueError(
                f"train.processes and train.model_axis are at least 1, train.devices "
                f"at least 0; got {self.processes}, {self.model_axis}, {self.devices}."
            )
        if self.devices % self.processes:
            raise ValueError(
                f"train.devices={self.devices} is no multiple of train.processes="
                f"{self.processes}: it counts the devices of all processes."
            )


PLACEMENT = ("runner", "devices", "processes", "model_axis", "fully_sharded",
             "workers", "save_every_s")  # fmt: skip
"""Options of `TrainConfig` that may differ when a run is resumed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(SystemConfig):
    """Options that every run has.

    Attributes:
        out: The run folder; empty: runs/SYSTEM-CORPUS-PRESET-sSEED.
        seed: Seed of all random numbers.
        num_seeds: Students (and of each control) per fold.
        split: How subjects are divided; random-windows leaks them and says so.
        num_folds: Number of folds of kfold and random-windows.
        rows: Controls and baselines besides teacher and student. Those that the
            system's verdict rests on (no_teacher and alpha_0, unless it says) are
            always trained; a_a needs two seeds.
        teacher_run: Folder of another run on the same windows and folds whose finished
            teachers are taken; empty: they are trained. Options that only the student
            reads may differ.
        store: A window store that `eegkd prepare` wrote; empty prepares one inside
            the run folder.
        data: Corpus and preprocessing, where no store is given; corpora have their
            own values for what is None here.
        augment: Random changes of training windows.
        cache: The teacher's outputs on disk.
        train: The training loop.
        optim: The optimiser.
        events: From window probabilities to events.
    """

    out: str = ""
    seed: int = 0
    num_seeds: int = 5
    split: Literal["kfold", "loso", "fixed", "random-windows"] = "kfold"
    num_folds: int = 5
    rows: tuple[str, ...] = ROWS
    teacher_run: PathText = ""
    store: PathText = ""
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    cache: CacheConfig = CacheConfig()
    train: TrainConfig = TrainConfig()
    optim: OptimConfig = OptimConfig()
    events: EventsConfig = EventsConfig()

    def __post_init__(self) -> None:
        """Checks the seeds, whose generators take no others, and the system's own."""
        for name, seed in (("seed", self.seed), ("data.seed", self.data.seed)):
            if not 0 <= seed < MOST_SEED:
                raise InputError(
                    f"--{name} {seed}: give a whole number from 0 to {MOST_SEED - 1}."
                )
        if hasattr(super(), "__post_init__"):
            super().__post_init__()  # type: ignore[misc]


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """Returns a config with some of its options changed, by dotted name.

    Args:
        config: A frozen dataclass of dataclasses.
        changes: Options and values, as `{"eeg.dim": 64, "seed": 1}`.

    Raises:
        InputError: If an option does not exist.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        groups.setdefault(first, {})[rest] = value
    known = {field.name for field in dataclasses.fields(config)}
    new = {}
    for name, values in groups.items():
        if name not in known:
            raise InputError(f"There is no option {name!r}.{suggest(name, known)}")
        if "" in values:
            new[name] = values.pop("")
        if values:
            new[name] = override(new.get(name, getattr(config, name)), values)
    return dataclasses.replace(config, **new)


@functools.cache
def run_config(entry_config: type) -> type:
    """Joins the options of a run with a system's own, as one frozen dataclass."""
    title = (entry_config.__doc__ or "").strip().partition("\n")[0]
    fields = {"__doc__": title, "__module__": entry_config.__module__}
    joined = type(f"{entry_config.__name__}Run", (RunConfig, entry_config), fields)
    return dataclasses.dataclass(frozen=True, kw_only=True)(joined)


def preset_config(entry: Entry, preset: str) -> Any:
    """Returns the options of a run of a system: a preset's on top of the defaults.

    Raises:
        InputError: If there is no preset of that name.
    """
    return override(run_config(entry.config)(), check_preset(entry, preset))


def stage_config(config: Any, stage: Stage, *, last: bool) -> Any:
    """Returns a run's options for one of its stages, of which `last` is the student.

    The stage's own options come first, then, for stages before the student,
    `train.teacher_epochs` and `optim.teacher_learning_rate`, then the run's.
    """
    train, optim, own = config.train, config.optim, stage.options
    epochs = own.epochs or (not last and train.teacher_epochs) or train.epochs
    rate = own.learning_rate or (not last and optim.teacher_learning_rate)
    batch_size = own.batch_size or train.batch_size
    return dataclasses.replace(
        config,
        train=dataclasses.replace(train, epochs=epochs, batch_size=batch_size),
        optim=dataclasses.replace(optim, learning_rate=rate or optim.learning_rate),
    )


def num_steps(
    config: TrainConfig, sizes: Sequence[int], stage: Stage | None = None
) -> int:
    """Returns the updates of one training of `config.epochs` epochs.

    The number is the same in every fold: all share a schedule and a compiled step.

    Args:
        config: Options of the stage (`stage_config`).
        sizes: Number of examples that each fold trains on.
        stage: The stage, whose own options a message names.

    Raises:
        InputError: If some fold cannot fill a batch.
    """
    fewest = min(sizes)
    if config.batch_size > fewest and stage is not None and stage.options.batch_size:
        unit = "windows" if stage.scope == "row" else "recordings"
        raise InputError(
            f"The stage {stage.name} asks for batches of {config.batch_size} {unit}, "
            f"and its smallest training has {fewest}: ask for at most {fewest}."
        )
    if config.batch_size > fewest:
        raise InputError(
            f"--train.batch_size {config.batch_size}: the smallest fold trains on "
            f"{fewest} windows. Ask for at most {fewest}, or cut more windows."
        )
    steps = config.epochs * (fewest // config.batch_size)
    return min(steps, config.max_steps) if config.max_steps else steps
