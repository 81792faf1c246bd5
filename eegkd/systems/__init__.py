"""A distillation system as data: stages made of pure functions.

A `System` is to this library what `GradientTransformation` is to optax: a tuple of
functions that training, evaluation and deployment know by its type alone. Every package
in this folder is a system; every module is a part that systems share.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from eegkd.losses.compose import Term
from eegkd.systems.signal import SignalConfig, SystemConfig
from eegkd.typing import Array, Batch, PyTree, Tensors, Variables

__all__ = [
    "Probe",
    "SignalConfig",
    "Stage",
    "StageOptions",
    "System",
    "SystemConfig",
    "Weights",
    "add_terms",
    "balanced_terms",
    "batch_length",
    "get_stage",
    "init_stage",
    "keep_all",
    "predict_fn",
    "replace_stage",
    "upstream_inputs",
    "window_row",
]


def __dir__() -> list[str]:
    return list(__all__)


LOADED = "loaded"
"""Where a stage keeps loaded weights that it does not train: `frozen["loaded"]`."""


class Weights(NamedTuple):
    """Published weights that a stage starts from, read once, outside jit.

    Attributes:
        name: Name of the model for `eegkd.models.load_pretrained`.
        files: Files that are read; a run is bound to their SHA-256.
        shapes: `() -> tree` of shapes and dtypes, without reading values.
        read: `() -> tree` of arrays.
    """

    name: str
    files: tuple[Path, ...]
    shapes: Callable[[], PyTree]
    read: Callable[[], PyTree]


class Probe(NamedTuple):
    """A term that is measured and never trained on.

    Attributes:
        term: Measured term; its mean over windows is logged.
        when: "eval" measures some training and validation windows at every evaluation,
            and test windows at the end; "end" measures test windows alone.
        group: Probes of one group are drawn in one figure ("layers"); "" is no group.
    """

    term: Term
    when: Literal["eval", "end"] = "end"
    group: str = ""


class StageOptions(NamedTuple):
    """Options of one stage that differ from the run's; None takes the run's.

    Attributes:
        epochs: Passes over the training windows; the run has `train.teacher_epochs`
            for stages before the student.
        batch_size: Global batch size, in windows; in recordings for that scope.
        learning_rate: Peak of the schedule; the run has `optim.teacher_learning_rate`
            for stages before the student.
        eval_batch: Windows per batch of an evaluation.
        eval_every: Updates between evaluations.
        crossfit: Parts of the training subjects, each of which is described by a
            training on the others; 0 trains on all alone. Later stages then read
            outputs for training windows that no training has seen.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    eval_batch: int | None = None
    eval_every: int | None = None
    crossfit: int = 0


class Stage(NamedTuple):
    """One trained (or given) part of a system.

    Attributes:
        name: "teacher", "student", ...
        init: `(key, batch, earlier stages' Variables by name[, loaded]) -> Variables`;
            `loaded` is what `load` reads, and is passed only where `load` is set.
        forward: `(variables, batch, upstream, *, train, key) -> (tensors, state)`;
            `upstream` maps earlier stage names to their stopped tensors.
        terms: Training losses; a stage without any is never trained.
        predict: `(variables, batch) -> probabilities`; None for a stage that is no
            classifier of rows (a tower, a projector): it is not judged, and selected by
            the least mean validation loss of its terms.
        explain: `(variables, batch) -> token ids` of an answer in words.
        needs: Upstream tensors that `forward` itself reads, as "teacher.block_3".
        borrowed: Tensors of the stage that are made from upstream's, as
            "student.mhca_aligned": a term that reads one needs the teacher too.
        labels: Parameter groups for `optax.multi_transform`, if any.
        depths: Parameters -> the depth of each, for layer-wise rates, if any: a number,
            or one per row where equal layers are stacked; 0 is next to the input.
        finish: Run once on trained Variables: drops what only training needs (a text
            tower becomes its class vectors). None leaves them unchanged.
        probes: Terms that are measured and never trained on.
        load: Published weights. Those that stay untrained lie in `frozen["loaded"]`,
            at the paths of `read`: a run keeps their SHA-256 in place of a copy.
        options: Training options that differ from the run's.
        scope: "row": a batch is windows. "recording": a batch is whole recordings in
            time order, padded, `[r, n, ...]`, with `mask bool[r, n]`; such a stage is
            read through the cache alone.
        balanced: Names of the terms that a balancer scales; () is all.
    """

    name: str
    init: Callable[..., Variables]
    forward: Callable[..., tuple[Tensors, PyTree]]
    terms: tuple[Term, ...] = ()
    predict: Callable[[Variables, Batch], Array] | None = None
    explain: Callable[[Variables, Batch], Array] | None = None
    needs: tuple[str, ...] = ()
    borrowed: tuple[str, ...] = ()
    labels: Callable[[PyTree], PyTree] | None = None
    depths: Callable[[PyTree], PyTree] | None = None
    finish: Callable[[Variables], Variables] | None = None
    probes: tuple[Probe, ...] = ()
    load: Weights | None = None
    options: StageOptions = StageOptions()
    scope: Literal["row", "recording"] = "row"
    balanced: tuple[str, ...] = ()


def keep_all(batch: Batch, stages: frozenset[str]) -> Batch:
    """Returns the batch unchanged: the `prepare` of a system that adds nothing."""
    del stages
    return batch


def window_row(signal: SignalConfig) -> Batch:
    """Returns one window of zeros, as a window store gives its rows."""
    shape = (signal.n_chans, signal.n_times)
    label = np.zeros(len(signal.classes), np.float32) if signal.multilabel else 0
    return {
        "signal": np.zeros(shape, np.float32),
        "label": np.asarray(label, np.float32 if signal.multilabel else np.int32),
        "subject": np.int32(0),
        "window_id": np.int32(0),
    }


class System(NamedTuple):
    """Stages in training order, and the inputs of the last one, the student.

    Attributes:
        name: Name of the system.
        inputs: Batch keys the student needs at inference.
        prepare: `(batch, names of the stages that will run) -> batch` in NumPy, called
            by the loader's workers. Inputs of one stage alone lie under
            `batch[its name]`.
        stages: In training order; the last one is the student.
        row: `signal config -> batch of one row`, zeros, without the leading axis.
        measure: `(signals of one recording in time order, signal config) -> f32[n, m]`:
            expensive features of each window, computed once per store.
        decode: `token ids -> words`, for stages that explain.
        columns: Columns of the signal that the student sees; () is all. Set by
            `eegkd.systems.channels.see_channels`.
    """

    name: str
    inputs: tuple[str, ...]
    prepare: Callable[[Batch, frozenset[str]], Batch]
    stages: tuple[Stage, ...]
    row: Callable[[SignalConfig], Batch] = window_row
    measure: Callable[..., np.ndarray] | None = None
    decode: Callable[[Any], str] | None = None
    columns: tuple[int, ...] = ()


def batch_length(batch: Batch) -> int:
    """Returns the number of examples: the first axis of the first array."""
    return len(jax.tree.leaves(batch)[0])


def get_stage(system: System, name: str) -> Stage:
    """Returns the stage called `name`.

    Raises:
        ValueError: If the system has no such stage.
    """
    for stage in system.stages:
        if stage.name == name:
            return stage
    names = ", ".join(stage.name for stage in system.stages)
    raise ValueError(f"System {system.name!r} has stages {names}; got {name!r}.")


def predict_fn(system: System, name: str) -> Callable[[Variables, Batch], Array]:
    """Returns the `predict` of the stage called `name`.

    Raises:
        ValueError: If there is no such stage, or it predicts nothing.
    """
    found = get_stage(system, name).predict
    if found is None:
        raise ValueError(f"Stage {name!r} of system {system.name!r} predicts nothing.")
    return found


def replace_stage(system: System, stage: Stage) -> System:
    """Returns `system` with the stage of the same name replaced by `stage`."""
    get_stage(system, stage.name)
    stages = tuple(stage if old.name == stage.name else old for old in system.stages)
    return system._replace(stages=stages)


def add_terms(system: System, stage_name: str, *terms: Term) -> System:
    """Returns `system` with `terms` added to one stage.

    Example:
        >>> system = add_terms(system, "student", Term("ot", token_ot, (
        ...     "student.tokens", "teacher.tokens"), 0.1))  # doctest: +SKIP

    Raises:
        ValueError: If the stage has a term of that name already.
    """
    stage = get_stage(system, stage_name)
    taken = {term.name for term in stage.terms}
    for term in terms:
        if term.name in taken:
            raise ValueError(f"Stage {stage_name!r} has a term {term.name!r} already.")
    return replace_stage(system, stage._replace(terms=stage.terms + tuple(terms)))


def upstream_inputs(stage: Stage) -> tuple[str, ...]:
    """Lists the upstream tensors a stage reads: the contents of a teacher cache."""
    named = [
        name
        for term in stage.terms
        for name in (*term.inputs, *((term.count,) if term.count else ()))
    ]
    own = (f"{stage.name}.", "batch.")
    found = [name for name in (*named, *stage.needs) if not name.startswith(own)]
    return tuple(dict.fromkeys(found))


def balanced_terms(stage: Stage) -> tuple[Term, ...]:
    """Returns the terms of a stage that a balancer scales against each other."""
    names = stage.balanced or tuple(term.name for term in stage.terms)
    return tuple(term for term in stage.terms if term.name in names)


def init_stage(
    stage: Stage,
    key: Array,
    batch: Batch,
    upstream: Mapping[str, Variables],
    loaded: PyTree | None = None,
) -> Variables:
    """Calls a stage's `init`, with loaded weights where it takes any."""
    if stage.load is None:
        return stage.init(key, batch, upstream)
    return stage.init(key, batch, upstream, loaded)
