"""Source of the teacher's outputs in a student's training: memory, disk or step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eegkd.cache.config import CacheConfig
from eegkd.cache.external import given_names
from eegkd.cache.fill import check_room
from eegkd.cache.forms import TensorForm, choose_form
from eegkd.config import RunConfig
from eegkd.data.windows.folds import Fold
from eegkd.errors import InputError
from eegkd.evaluate.controls import OUTPUT_CONTROLS
from eegkd.host.sealed import format_bytes
from eegkd.pipeline.folder import read_json, write_json
from eegkd.pipeline.special_outputs import output_specs
from eegkd.systems import SignalConfig, System, upstream_inputs
from eegkd.systems.batches import init_shapes, stage_example, stage_shapes
from eegkd.systems.outputs import needs_outputs
from eegkd.train.distributed import is_first
from eegkd.train.inputs import Specs

MEMORY_LIMIT = 2 * 2**30
_ALONE = (
    "reads a stage that looks at whole recordings, or that is trained in parts, whose "
    "outputs are computed once and kept"
)
Mode = Literal["none", "memory", "cached", "online"]


class Teacher(NamedTuple):
    """Source of the outputs that a system's student reads.

    Attributes:
        mode: Source; none if the student reads no outputs.
        specs: Shapes and dtypes of one window's outputs, where they are kept.
        given: Tensors that another framework computed.
        text: Choice and reason, in one line.
    """

    mode: Mode = "none"
    specs: Specs = {}
    given: tuple[str, ...] = ()
    text: str = ""

    @property
    def kept(self) -> bool:
        """True if outputs are computed once and read in every step."""
        return self.mode in ("memory", "cached")

    def external_stages(self, system: System) -> frozenset[str]:
        """Returns the stages whose outputs all come from another framework."""
        wanted: dict[str, set[str]] = {}
        for name in upstream_inputs(system.stages[-1]):
            wanted.setdefault(name.partition(".")[0], set()).add(name)
        return frozenset(s for s, names in wanted.items() if names <= set(self.given))


def choose_teachers(
    systems: Mapping[str, System], folds: Sequence[Fold], config: Any, folder: Path
) -> dict[str, Teacher]:
    """Chooses the source of the teacher's outputs for each system's student.

    The choice is kept in the run folder: a resumed run does not choose again, on a disk
    that has filled since.

    Args:
        systems: Variant name -> system; "" is the run's own.
        folds: The run's folds.
        config: Options of the run.
        folder: The run folder.

    Raises:
        InputError: If options contradict each other, or a cache is too large.
    """
    file = folder / "teacher.json"
    before = read_json(file, dict[str, Mode]) if file.is_file() else {}
    num = max(len(fold.train) for fold in folds)
    found = {}
    for variant, system in systems.items():
        rows = () if variant else config.rows
        chosen = before.get(variant or "system")
        found[variant] = choose_teacher(system, num, config, rows, chosen)
    modes = {name or "system": teacher.mode for name, teacher in found.items()}
    if is_first():
        write_json(file, modes)
    return found


def choose_teacher(
    system: System,
    num_windows: int,
    config: Any,
    rows: Sequence[str] = (),
    chosen: Mode | None = None,
) -> Teacher:
    """Chooses where the outputs are kept, before anything is trained.

    Args:
        system: System of the student.
        num_windows: Most windows that a fold trains on.
        config: Options of the run, with `signal`.
        rows: Wanted controls.
        chosen: Choice of an earlier start of this run.

    Raises:
        InputError: If options contradict each other, or the cache is too large.
    """
    student = system.stages[-1]
    names = upstream_inputs(student)
    if not names:
        return Teacher()
    cache, views = config.cache, config.augment.views
    asked = chosen or _asked(config)
    moved = sorted(set(rows) & set(OUTPUT_CONTROLS))
    _check_augment(system, config)
    if needs_outputs(system, student):
        asked = _cached_alone(asked)
    if asked == "online":
        return _online("--train.teacher online", moved)
    if views == 0:
        why = "--augment.num_views 0 shows a fresh view every epoch"
        if asked != "auto":
            raise InputError(
                f"{why}, so nothing can be kept: set a number of views, or "
                "--train.teacher online."
            )
        return _online(why, moved)
    given = tuple(given_names(cache.given, names)) if cache.given else ()
    try:
        specs = _specs(system, names, config.signal)
    except InputError:
        if asked != "auto":
            raise
        return _online("a tensor has no row a window", moved)
    in_memory = (
        num_windows
        * views
        * sum(TensorForm(*spec, "as_is").bytes for spec in specs.values())
    )
    if asked == "memory" or (asked == "auto" and in_memory <= MEMORY_LIMIT):
        text = f"The teacher's outputs are kept in memory: {format_bytes(in_memory)}."
        return Teacher("memory", specs, text=text)
    forms = cache_forms(specs, cache)
    total = num_windows * views * sum(form.bytes for form in forms.values())
    folder = Path(cache.folder or config.out).absolute()
    try:
        need = 0 if chosen else total
        check_room(folder, need, total=total, limit_gb=cache.limit_gb)
    except InputError as error:
        if asked != "auto":
            raise
        return _online(f"{format_bytes(in_memory)} fit no memory, and {error}", moved)
    text = f"The teacher's outputs are kept on disk: {format_bytes(total)} a fold."
    teacher = Teacher("cached", specs, given, text)
    if teacher.external_stages(system):
        _check_start(system, teacher.external_stages(system), config.signal)
    return teacher


def cache_forms(specs: Specs, cache: CacheConfig) -> dict[str, TensorForm]:
    """Chooses the storage form of each tensor.

    Raises:
        InputError: If a form does not fit, or names a tensor that is not read.
    """
    unknown = set(cache.tensors) - specs.keys()
    if unknown:
        raise InputError(
            f"--cache.tensors {' '.join(sorted(unknown))}: the student reads "
            f"{', '.join(specs)}."
        )
    return {
        name: choose_form(
            name,
            shape,
            dtype,
            numbers=cache.form,
            pool=cache.pool,
            rank=cache.rank,
            asked=cache.tensors,
        )
        for name, (shape, dtype) in specs.items()
    }


def read_specs(teacher: Teacher, cache: CacheConfig) -> Specs:
    """Returns the shapes and dtypes of the tensors that a training step reads."""
    if teacher.mode != "cached":
        return teacher.specs
    forms = cache_forms(teacher.specs, cache)
    return {
        name: (form.read_shape, dtype if form.numbers == "as_is" else "float32")
        for (name, form), (_, dtype) in zip(
            forms.items(), teacher.specs.values(), strict=True
        )
    }


def _asked(config: RunConfig) -> str:
    """Returns the mode that the options ask for: auto, or one of the others.

    Raises:
        InputError: If they contradict each other.
    """
    mode, cache = config.train.teacher, config.cache
    default = CacheConfig()
    stored = [
        name
        for name in ("folder", "form", "pool", "rank", "tensors", "given")
        if getattr(cache, name) != getattr(default, name)
    ]
    if cache.given and config.augment.active:
        raise InputError(
            "--cache.given holds one view of a window: leave --augment off, or let "
            "this run's own teacher fill the cache."
        )
    if not stored or mode == "cached":
        return mode
    if mode == "auto":
        return "cached"
    raise InputError(
        f"--cache.{stored[0]} has no effect with --train.teacher {mode}: take it out, "
        "or set --train.teacher cached."
    )


def _online(why: str, moved: Sequence[str]) -> Teacher:
    if moved:
        raise InputError(
            f"The teacher runs online ({why}), and the rows {', '.join(moved)} need "
            "its outputs kept: take them out of --rows, or keep the outputs "
            "(--train.teacher cached, --cache.limit_gb, --augment.num_views)."
        )
    return Teacher("online", text=f"The teacher runs online in every step: {why}.")


def _check_augment(system: System, config: Any) -> None:
    """Refuses changed windows beside outputs that are those of windows unchanged."""
    read = [
        stage.name
        for stage in system.stages
        if stage.scope == "row" and needs_outputs(system, stage)
    ]
    if config.augment.active and read:
        raise InputError(
            f"--augment shows changed windows, and the stage {read[0]} {_ALONE}: leave "
            "--augment off."
        )


def _cached_alone(asked: str) -> str:
    """Returns the mode for outputs that no step can compute on its own batch.

    Raises:
        InputError: If they are to be computed online.
    """
    if asked == "online":
        raise InputError(
            f"--train.teacher online: the student {_ALONE}. Choose memory or cached, "
            "or leave it out."
        )
    return "memory" if asked == "auto" else asked


def _specs(system: System, names: Sequence[str], signal: SignalConfig) -> Specs:
    shapes = stage_shapes(system, signal)
    upstream = {stage.name: shapes[stage.name].finished for stage in system.stages[:-1]}
    return output_specs(system, names, upstream, signal)


def _check_start(system: System, given: frozenset[str], signal: SignalConfig) -> None:
    """Checks that the student does not start from a stage known only by its outputs."""
    stage = system.stages[-1]
    try:
        init_shapes(stage, stage_example(system, stage, signal), {})
    except KeyError as error:
        raise InputError(
            f"--cache.given gives the outputs of {', '.join(sorted(given))}, but the "
            "student starts from the stage's variables as well: give fewer of its "
            "tensors, and it is trained here."
        ) from error
