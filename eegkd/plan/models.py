"""What a model of a known name costs: parameters, operations, memory a device.

Everything is traced by shape; nothing is initialised, compiled or run. What lies on a
device between steps (weights, gradients, optimiser) is exact. What a step holds beside
is an estimate of what has to be there at its fullest, before a compiler fuses,
reorders or copies: `tests/pipeline/test_large_step.py` compares it with XLA's account.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from eegkd.losses.language import CHUNK
from eegkd.ops import count_flops
from eegkd.plan.account import Part
from eegkd.plan.catalogue import Known
from eegkd.plan.chips import get_chip
from eegkd.plan.trace import ModelPlan, Traced, check_options, lora_config, trace_model
from eegkd.systems.batches import num_bytes
from eegkd.systems.language import run_language
from eegkd.train.partition import bytes_a_device, locate, mesh_axes, places
from eegkd.train.sharding import AXIS, MODEL, path_of
from eegkd.typing import StepKeys, Variables

_LAYERS_AHEAD = 2
_VIEWS = ("transpose", "reshape", "sharding_constraint")


def plan_model(name: str, options: ModelPlan) -> dict[str, Any]:
    """Returns the account of a model as JSON can hold it.

    Raises:
        InputError: If there is no such model, or the options do not fit it.
    """
    check_options(options)
    chip = get_chip(options.chip) if options.chip else None
    traced = trace_model(name, options)
    known, variables = traced.known, traced.variables
    data = options.devices // options.model_axis
    mesh = AbstractMesh((data, options.model_axis), (AXIS, MODEL))
    axes = mesh_axes(model=options.model_axis, fully_sharded=options.fully_sharded)
    place = locate(mesh, axes)
    weights = {"params": variables.params, "frozen": variables.frozen}
    parts = count_model_parts(variables, known.group)
    groups: dict[str, int] = {}
    for part in parts:
        group = part.name.partition("/")[0]
        groups[group] = groups.get(group, 0) + part.parameters
    plan: dict[str, Any] = {
        "model": name,
        "options": dataclasses.asdict(options),
        "mesh": {AXIS: data, MODEL: options.model_axis},
        "cut_along": list(axes),
        "parameters": sum(part.parameters for part in parts),
        "trained": sum(part.parameters for part in parts if part.trained),
        "groups": groups,
        "parts": [part._asdict() for part in parts],
        "visual_tokens": known.visual_tokens,
        "flops": _flops(traced, name, options),
        # The table knows each path and cuts each axis, or these go by their shapes.
        "cut_by_shape": {
            path: found.reason
            for path, _, found in places(weights, place)
            if axes and found.reason not in ("table", "small")
        },
    }
    kept = functools.partial(bytes_a_device, mesh=mesh, place=place)
    memory = {
        "parameters": kept(variables.params),
        "frozen": kept(variables.frozen),
        "gradients": kept(variables.params),
        "optimiser": kept(traced.state.opt_state),
        "batch": num_bytes(traced.batch) // data,
    }
    plan["memory"] = memory
    plan["memory_estimate"] = _in_a_step(traced, name, options, data)
    plan["memory_bytes"] = sum(memory.values()) + sum(plan["memory_estimate"].values())
    if known.decoder is not None:
        plan["kv_cache"] = _cache_bytes(known, options)
    if chip is not None:
        plan["chip"] = chip._asdict()
        plan["fits"] = plan["memory_bytes"] <= chip.memory_bytes
        seconds = plan["flops"]["step"] / options.devices / chip.half_flops
        plan["least_step_s"] = seconds
    return plan


def count_model_parts(variables: Variables, group: str = "") -> list[Part]:
    """Counts parameters by part; stacked layers are one line of so many copies.

    Args:
        variables: As `eegkd.systems.language.split_variables` makes them.
        group: Put before the names of a model that has no groups of its own.

    Returns:
        Parts such as "language/embed" and "language/layers"; adapters are named as what
        they are beside, "lora/language/layers".
    """
    found: dict[tuple[str, bool], list[tuple[Any, int]]] = {}
    lora = variables.params.get("lora", {})
    outer = [group] if group else []
    for trained, before, tree in (
        (True, outer, variables.params["base"]),
        (True, ["lora", *outer], lora),
        (False, outer, variables.frozen),
    ):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            path = [*before, *(str(key.key) for key in keys)]
            name, copies = "/".join(path[:2]), 1
            if "layers" in path[:-1]:
                name = "/".join(path[: path.index("layers") + 1])
                copies = leaf.shape[0]
            found.setdefault((name, trained), []).append((leaf, copies))
    return [
        Part(
            name,
            leaves[0][1],
            sum(math.prod(leaf.shape) for leaf, _ in leaves),
            trained,
        )
        for (name, trained), leaves in found.items()
    ]


def _flops(traced: Traced, name: str, options: ModelPlan) -> dict[str, int]:
    """Counts operations of the whole batch, all devices together."""
    known, variables = traced.known, traced.variables
    lora = lora_config(known, options.lora)
    run = functools.partial(run_language, known.module, lora=lora)
    inputs = {k: x for k, x in traced.batch.items() if k != "target"}
    forward = count_flops(run, variables, inputs)
    args = (traced.state, variables.frozen, {}, traced.batch)
    found = {"forward": forward, "step": count_flops(traced.step, *args)}
    if options.remat == "none":
        found["step_without_recomputation"] = found["step"]
    else:
        plain = trace_model(name, options, remat="none")
        found["step_without_recomputation"] = count_flops(plain.step, *args)
    if known.decoder is not None:
        found["decode_token"] = _decode_flops(traced, options, run)
    return found


def _decode_flops(traced: Traced, options: ModelPlan, run: Any) -> int:
    """Counts one more token of every example, with a full cache of earlier ones."""
    shape = jax.ShapeDtypeStruct
    one = {"ids": shape((options.batch_size, 1), jnp.int32)}
    begun = jax.eval_shape(
        functools.partial(run, room=options.length, logits="none"),
        traced.variables,
        one,
    )
    more = lambda variables, batch, cache: run(variables, batch, cache=cache)
    return count_flops(more, traced.variables, one, begun["cache"])


def _cache_bytes(known: Known, options: ModelPlan) -> dict[str, int]:
    """Counts keys and values of `length` tokens of every example, on one device."""
    cfg = known.decoder
    if cfg is None:
        raise ValueError(f"{known.name} has no decoder.")
    data, model = options.devices // options.model_axis, options.model_axis
    heads = cfg.num_kv_heads
    # Heads are cut over the model axis where they divide.
    own = heads // model if heads % model == 0 else heads
    each = 2 * cfg.depth * cfg.head_dim * jnp.dtype(options.dtype).itemsize
    return {
        "bytes_per_token": each * heads,
        "bytes": each * own * options.length * options.batch_size // data,
    }


def _in_a_step(
    traced: Traced, name: str, options: ModelPlan, data: int
) -> dict[str, int]:
    """Estimates what a device holds for the time of a step, at its fullest.

    `between_layers` is what the forward pass keeps for the backward pass: with "full"
    the tokens that went into each layer. `one_layer` is what one layer, computed again,
    keeps for its own backward pass. `gathered` are whole layers while they are used
    (this one, and the next on its way), and `logits` a chunk of them with its gradient.
    """
    model = options.model_axis
    saved = _saved_bytes(traced, options)
    again = 0
    if options.remat != "none":
        kept, more = (
            _saved_bytes(trace_model(name, options, remat=remat, depth=1), options)
            for remat in (options.remat, "none")
        )
        again = max(0, more - kept)
    known, variables = traced.known, traced.variables
    found = {
        # The tokens between layers are whole on each device of the model axis.
        "between_layers": saved // data,
        "one_layer": again // (data * model),
    }
    if known.decoder is not None:
        words = known.decoder.vocab_size
        chunk = min(CHUNK, options.length)
        found["logits"] = 2 * 4 * options.batch_size * chunk * words // (data * model)
    if options.fully_sharded:
        found["gathered"] = _LAYERS_AHEAD * _layer_bytes(variables) // model
    return found


def _layer_bytes(variables: Variables) -> int:
    """Returns the bytes of one layer of the largest stack, adapters included."""
    sizes: dict[str, int] = {}
    params = variables.params
    for tree in (params["base"], params.get("lora", {}), variables.frozen):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            before, layers, _ = path_of(keys).partition("layers/")
            if layers:
                own = num_bytes(leaf) // leaf.shape[0]
                sizes[before] = sizes.get(before, 0) + own
    return max(sizes.values(), default=0)


def _saved_bytes(traced: Traced, options: ModelPlan) -> int:
    """Adds up what the forward pass computes and keeps for the backward pass.

    Weights and the batch that it keeps are there anyway. With fused attention, scores
    of tokens with tokens are not among it.
    """
    (stage,) = traced.system.stages
    (term,) = stage.terms
    keys = StepKeys(jax.random.key(0), jax.random.key(1))

    def residuals(params: Any, rest: Any, batch: Any) -> Any:
        def forward(params: Any) -> Any:
            given = rest._replace(params=params)
            out, _ = stage.forward(given, batch, {}, train=True, key=keys)
            own = term.inputs[0].partition(".")[2]
            return out[own]

        return jax.vjp(forward, params)[1]

    args = (traced.variables.params, traced.variables, traced.batch)
    jaxpr = jax.make_jaxpr(residuals)(*args).jaxpr
    given = {id(var) for var in (*jaxpr.invars, *jaxpr.constvars)}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _VIEWS and id(eqn.invars[0]) in given:
            given |= {id(var) for var in eqn.outvars}
    made = {
        id(var): var.aval
        for var in jaxpr.outvars
        if id(var) not in given and not hasattr(var, "val")  # a constant
    }
    tokens = traced.known.tokens(options.length)

    def are_scores(aval: Any) -> bool:
        """Tells whether it holds a number for every two tokens of an example."""
        pairs = tokens**2 * options.batch_size
        return aval.shape[-1:] == (tokens,) and math.prod(aval.shape) >= pairs

    fused = options.attention == "fused"
    return sum(num_bytes(x) for x in made.values() if not (fused and are_scores(x)))
