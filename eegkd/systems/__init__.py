"""A distillation system as data: stages made of pure functions.

A `System` is to this library what `GradientTransformation` is to optax: a tuple of
functions that training, evaluation and export know by its type alone. A new system is
one new file beside this one.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from eegkd.losses.compose import Term
from eegkd.systems.signal import SignalConfig, SystemConfig
from eegkd.typing import Array, Batch, PyTree, Tensors, Variables

__all__ = [
    "SignalConfig",
    "Stage",
    "System",
    "SystemConfig",
    "add_terms",
    "get_stage",
    "keep_all",
    "replace_stage",
    "upstream_inputs",
]


class Stage(NamedTuple):
    """One trained (or given) part of a system.

    Attributes:
        name: "teacher", "student", ...
        init: `(key, batch, earlier stages' Variables by name) -> Variables`.
        forward: `(variables, batch, upstream, *, train, key) -> (tensors, state)`;
            `upstream` maps earlier stage names to their stopped tensors.
        terms: What it is trained with; empty: not trained.
        needs: Upstream tensors that `forward` itself reads, as "teacher.block_3".
        labels: Parameter groups for `optax.multi_transform`, if any.
        depths: Parameters -> the depth of each, for layer-wise rates, if any: a number,
            or one a row where equal layers are stacked; 0 is next to the input.
        finish: Run once on trained Variables: drops what only training needs (a text
            tower becomes its class vectors). None: they are used as they are.
        borrowed: The stage's own tensors that are made of upstream's, as
            "student.mhca_aligned": a term that reads one is the teacher's too.
        watched: Read like terms and never trained on: their means over some training
            and validation windows are logged at every evaluation.
        measured: The same, once a training has ended, over some test windows, where
            those that are watched are measured too.
    """

    name: str
    init: Callable[[Any, Batch, Mapping[str, Variables]], Variables]
    forward: Callable[..., tuple[Tensors, PyTree]]
    terms: tuple[Term, ...]
    needs: tuple[str, ...] = ()
    labels: Callable[[PyTree], PyTree] | None = None
    finish: Callable[[Variables], Variables] | None = None
    borrowed: tuple[str, ...] = ()
    depths: Callable[[PyTree], PyTree] | None = None
    watched: tuple[Term, ...] = ()
    measured: tuple[Term, ...] = ()


class System(NamedTuple):
    """Stages in training order, and what the last one, the student, needs alone.

    Attributes:
        name: The system's name.
        inputs: Batch keys the student needs at inference.
        prepare: NumPy, one example, run in the loader's workers.
        stages: In training order; the last one is the student.
        predict: `(stage name, variables, batch) -> probabilities`, no teacher needed.
        columns: Of the signal's channels, those that the student sees; () is all. Set
            by `eegkd.systems.channels.see_channels`.
    """

    name: str
    inputs: tuple[str, ...]
    prepare: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
    stages: tuple[Stage, ...]
    predict: Callable[[str, Variables, Batch], Array]
    columns: tuple[int, ...] = ()


def keep_all(example: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Is the `prepare` of a system that adds nothing to an example."""
    return example


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


def replace_stage(system: System, stage: Stage) -> System:
    """Returns `system` with the stage of the same name replaced by `stage`."""
    get_stage(system, stage.name)
    stages = tuple(stage if old.name == stage.name else old for old in system.stages)
    return system._replace(stages=stages)


def add_terms(system: System, stage_name: str, *terms: Term) -> System:
    """Returns `system` with `terms` added to what one stage is trained with.

    Example:
        >>> system = add_terms(system, "student", Term("ot", token_ot, (
        ...     "student.tokens", "teacher.tokens"), 0.1))  # doctest: +SKIP

    Raises:
        ValueError: If a term of that name is there already.
    """
    stage = get_stage(system, stage_name)
    taken = {term.name for term in stage.terms}
    for term in terms:
        if term.name in taken:
            raise ValueError(f"Stage {stage_name!r} has a term {term.name!r} already.")
    return replace_stage(system, stage._replace(terms=stage.terms + tuple(terms)))


def upstream_inputs(stage: Stage) -> tuple[str, ...]:
    """Lists the upstream tensors a stage reads: what a teacher cache must hold."""
    named = [
        name
        for term in stage.terms
        for name in (*term.inputs, *((term.count,) if term.count else ()))
    ]
    own = (f"{stage.name}.", "batch.")
    found = [name for name in (*named, *stage.needs) if not name.startswith(own)]
    return tuple(dict.fromkeys(found))
