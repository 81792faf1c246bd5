"""A stage trained with a bridge that brings a teacher's tensors to it."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from eegkd.losses.compose import Term
from eegkd.models import apply_params
from eegkd.systems import Probe, Stage, System, get_stage, replace_stage
from eegkd.typing import Array, Batch, PyTree, Tensors, Variables


def add_bridge(
    system: System,
    stage_name: str,
    name: str,
    module: Any,
    inputs: Sequence[str],
    *terms: Term,
    probes: Sequence[Probe] = (),
) -> System:
    """Returns `system` with a bridge, and terms that read it, on one stage.

    `module(*inputs)` is trained with the stage, by the terms alone. Its outputs are
    read as "<stage>.<name>_<tensor>". A finished stage has no bridge, and neither has
    one that was started without the earlier stages it reads (the row `no_teacher`).
    The stage starts from the same numbers as without a bridge.

    Args:
        system: System of the stage.
        stage_name: Name of the stage, as "student".
        name: Name of the bridge, and of its parameters.
        module: A module of `eegkd.models.bridges`, or any that returns a dict of
            tensors.
        inputs: Tensors it is called with, as "student.tokens", "teacher.tokens".
        terms: Losses of the stage and the bridge.
        probes: Further probes of the stage.

    Example:
        >>> system = add_bridge(
        ...     system, "student", "mhca", MultiHeadAlignment(num_heads=4),
        ...     ("student.tokens", "teacher.tokens"),
        ...     Term("mhca", attention_alignment,
        ...          ("student.tokens", "student.mhca_aligned")),
        ...     Term("mhca_own", fitnet,
        ...          ("student.mhca_reconstruction", "student.mhca_target")),
        ... )  # doctest: +SKIP

    Raises:
        ValueError: If the stage has a term of that name already.
    """
    stage = get_stage(system, stage_name)
    taken = {term.name for term in stage.terms} & {term.name for term in terms}
    if taken:
        raise ValueError(
            f"Stage {stage_name!r} has terms of these names already: "
            f"{', '.join(sorted(taken))}."
        )
    prefix = f"{stage_name}."
    foreign = tuple(given for given in inputs if not given.startswith(prefix))
    mark = f"{prefix}{name}_"
    every = (*terms, *(probe.term for probe in probes))
    read = (given for term in every for given in term.inputs if given.startswith(mark))
    bridged = stage._replace(
        init=_init(system, stage, name, module, inputs),
        forward=_forward(stage, name, module, inputs),
        finish=_finish(stage, name),
        terms=stage.terms + tuple(terms),
        needs=tuple(dict.fromkeys((*stage.needs, *foreign))),
        borrowed=tuple(dict.fromkeys((*stage.borrowed, *read))),
        probes=(*stage.probes, *probes),
    )
    return replace_stage(system, bridged)


def _init(
    system: System, stage: Stage, name: str, module: Any, inputs: Sequence[str]
) -> Callable[..., Variables]:
    groups = {given.partition(".")[0] for given in inputs}
    earlier = groups - {stage.name}

    def init(
        key: Array, batch: Batch, upstream: Mapping[str, Variables], *loaded: PyTree
    ) -> Variables:
        variables = stage.init(key, batch, upstream, *loaded)
        if not earlier <= set(upstream):
            return variables

        def read() -> list[Array]:
            tensors = _run(system, stage, variables, batch, upstream)
            return _pick(tensors, inputs)

        examples = [jnp.zeros(x.shape, x.dtype) for x in jax.eval_shape(read)]
        own = module.init(jax.random.fold_in(key, zlib.crc32(name.encode())), *examples)
        # A bridge may have none: a mean of layers.
        params = variables.params | {name: own.get("params", {})}
        return variables._replace(params=params)

    return init


def _forward(
    stage: Stage, name: str, module: Any, inputs: Sequence[str]
) -> Callable[..., tuple[Tensors, Any]]:
    def forward(
        variables: Variables,
        batch: Batch,
        upstream: Mapping[str, Tensors],
        *,
        train: bool,
        key: Any,
    ) -> tuple[Tensors, Any]:
        bare = _without(variables, name)
        tensors, state = stage.forward(bare, batch, upstream, train=train, key=key)
        if name not in variables.params:
            return tensors, state
        given = _pick({**upstream, stage.name: tensors}, inputs)
        made = apply_params(module, variables.params[name], *given)
        return {**tensors, **{f"{name}_{k}": v for k, v in made.items()}}, state

    return forward


def _finish(stage: Stage, name: str) -> Callable[[Variables], Variables]:
    def finish(variables: Variables) -> Variables:
        bare = _without(variables, name)
        return stage.finish(bare) if stage.finish else bare

    return finish


def _run(
    system: System,
    stage: Stage,
    variables: Variables,
    batch: Batch,
    upstream: Mapping[str, Variables],
) -> dict[str, Tensors]:
    """Runs the available earlier stages, and the stage."""
    found: dict[str, Tensors] = {}
    for other in system.stages:
        if other.name in upstream:
            own = upstream[other.name]
            found[other.name], _ = other.forward(
                own, batch, found, train=False, key=None
            )
    tensors, _ = stage.forward(variables, batch, found, train=False, key=None)
    return {**found, stage.name: tensors}


def _pick(tensors: Mapping[str, Tensors], names: Sequence[str]) -> list[Array]:
    parts = (name.partition(".") for name in names)
    return [tensors[group][key] for group, _, key in parts]


def _without(variables: Variables, name: str) -> Variables:
    params = {k: v for k, v in variables.params.items() if k != name}
    return variables._replace(params=params)
