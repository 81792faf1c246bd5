"""The table of a run's trainings: one line per training, in a possible order.

Progress, estimates, resuming, `evaluate`, `predict`, `export` and the reuse of teachers
read this table; nothing else knows the folder of a training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eegkd.evaluate.controls import OUTPUT_CONTROLS, SYSTEM_CONTROLS
from eegkd.evaluate.rows import A_A, A_A_OF, STUDENT
from eegkd.pipeline.baselines import TRIALS
from eegkd.pipeline.finished import is_finished
from eegkd.systems import System

SMALL_NET = "small_net"
STUDENT_ROWS = (*SYSTEM_CONTROLS, A_A, *OUTPUT_CONTROLS)
"""Rows that are trained beside the student, as it is."""

Wave = tuple["Training", ...]
"""Trainings that need nothing of each other."""


class Training(NamedTuple):
    """One training of a run.

    Attributes:
        fold: Number of the fold.
        row: Name of the row: an earlier stage, the student, a control or a baseline.
        stage: Name of the trained stage.
        variant: Name of the variant; "" is the run's own system.
        seed: Number of the repetition; None for earlier stages, trained once.
        trial: Name of the settings of a tuned row.
        part: Part of the training subjects that a cross-fitted stage leaves out.
    """

    fold: int
    row: str
    stage: str
    variant: str = ""
    seed: int | None = None
    trial: str = ""
    part: str = ""

    @property
    def place(self) -> Path:
        """Folder of the training, relative to the run folder."""
        folder = Path(f"fold{self.fold}", self.variant, self.row)
        if self.part:
            return folder / f"part{self.part}"
        if self.seed is None:
            return folder
        return folder / "-".join(filter(None, (f"seed{self.seed}", self.trial)))

    @property
    def repeated(self) -> bool:
        """True for students, controls and baselines; other stages are trained once."""
        return self.seed is not None

    @property
    def model(self) -> str:
        """Name of the model in results.json."""
        return row_name(self.variant, self.row)

    def done(self, run: Path) -> bool:
        """Checks that the training has ended and its folder is complete."""
        return is_finished(run / self.place)


def row_name(variant: str, row: str) -> str:
    """Returns the name of a variant's row in results.json."""
    if not variant:
        return row
    return variant if row == STUDENT else f"{variant}_{row}"


def left_out(system: System, config: Any) -> dict[str, str]:
    """Returns why wanted rows are not trained, by row."""
    found = {}
    for row in (name for name in config.rows if name in SYSTEM_CONTROLS):
        try:
            SYSTEM_CONTROLS[row](system)
        except ValueError as error:
            found[row] = f"it cannot be made of {system.name} ({error})"
    if A_A in config.rows and config.num_seeds < 2:
        found[A_A] = (
            f"with one seed nothing tells {A_A_OF} from another training of itself "
            "(--num_seeds 2)"
        )
    elif A_A in config.rows and (A_A_OF in found or A_A_OF not in config.rows):
        found[A_A] = f"there is no row {A_A_OF} to compare it with"
    return found


def student_rows(system: System, config: Any) -> tuple[str, ...]:
    """Lists the rows that are trained beside the student, as it is."""
    without = left_out(system, config)
    return tuple(x for x in config.rows if x in STUDENT_ROWS and x not in without)


def schedule(
    systems: Mapping[str, System],
    config: Any,
    num_folds: int,
    *,
    skipped: Mapping[str, frozenset[str]] | None = None,
    same_teacher: bool = False,
) -> tuple[Wave, ...]:
    """Lists all trainings of a run but the repeats of tuned rows, in waves.

    Args:
        systems: Variant name -> system; "" is the run's own.
        config: Options of the run.
        num_folds: Number of folds.
        skipped: Variant name -> stages whose outputs come from another framework.
        same_teacher: True if the variants share the run's own earlier stages.

    Returns:
        Fold by fold: each stage with its parts, then a system's student with its
        controls, then the trials of the tuned small net.
    """
    waves: list[Wave] = []
    for fold in range(num_folds):
        for variant, system in systems.items():
            if not (same_teacher and variant):
                without = (skipped or {}).get(variant, frozenset())
                waves += stage_waves(system, fold, variant, without)
            rows = (STUDENT, *(() if variant else student_rows(system, config)))
            student = system.stages[-1].name
            waves.append(
                tuple(
                    Training(fold, row, student, variant, seed)
                    for seed in range(config.num_seeds)
                    for row in rows
                )
            )
        if SMALL_NET in config.rows:
            waves.append(
                tuple(
                    Training(fold, SMALL_NET, STUDENT, seed=0, trial=trial.name)
                    for trial in TRIALS
                )
            )
    return tuple(waves)


def stage_waves(
    system: System, fold: int, variant: str, without: frozenset[str]
) -> list[Wave]:
    """Lists the trainings of the stages before the student, in order."""
    waves = []
    for stage in system.stages[:-1]:
        if not stage.terms or stage.name in without:
            continue
        whole = Training(fold, stage.name, stage.name, variant)
        parts = range(1, stage.options.crossfit + 1)
        waves.append((whole, *(whole._replace(part=str(part)) for part in parts)))
    return waves


def repeats(fold: int, trial: str, config: Any) -> Wave:
    """Lists the repetitions of a tuned row, once its trial is chosen."""
    return tuple(
        Training(fold, SMALL_NET, STUDENT, seed=seed, trial=trial)
        for seed in range(1, config.num_seeds)
    )


def num_repeats(config: Any) -> int:
    """Returns the number of repetitions per fold that `schedule` cannot name yet."""
    return config.num_seeds - 1 if SMALL_NET in config.rows else 0


def unfinished(waves: Sequence[Wave], run: Path) -> list[Training]:
    """Lists the unfinished trainings."""
    return [t for wave in waves for t in wave if not t.done(run)]


def missing(
    systems: Mapping[str, System], config: Any, num_folds: int, run: Path
) -> list[Path]:
    """Lists the folders of a run's unfinished trainings.

    Stages before the student count even where their outputs came from outside.
    """
    waves = schedule(systems, config, num_folds)
    left = [training.place for training in unfinished(waves, run)]
    for fold in range(num_folds):
        for seed in range(1, num_repeats(config) + 1):
            # Their trial is known only once the first repetition is scored.
            pattern = f"fold{fold}/{SMALL_NET}/seed{seed}-*"
            if not any(is_finished(place) for place in run.glob(pattern)):
                left.append(Path(pattern))
    return left
