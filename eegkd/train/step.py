"""One training step of one stage: pure, one device's view, explicit collectives."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from eegkd.losses import Balancer, combine, term_means
from eegkd.systems import Stage, System, get_stage, upstream_inputs
from eegkd.train.accumulate import accumulated_gradient
from eegkd.train.state import TrainState
from eegkd.typing import Array, Batch, PyTree, StepKeys, Tensors, Variables

Step = Callable[
    [TrainState, PyTree, Mapping[str, Variables], Batch],
    tuple[TrainState, dict[str, Array]],
]


def make_train_step(
    system: System,
    stage_name: str,
    tx: optax.GradientTransformation,
    *,
    balancer: Balancer | None = None,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Step:
    """Builds `step(state, frozen, upstream, batch) -> (state, metrics)`.

    `upstream` maps earlier stage names to their Variables. A stage found in
    `batch["cache"]` is read; any other that is needed runs with `train=False` and
    `key=None`. Both are stopped, and only the tensors that terms and `needs` name are
    handed on. Terms may also read "batch.labelled", which is 1 where the label is
    not negative.

    Args:
        system: Whose stage to train.
        stage_name: Which.
        tx: The optimiser; sees `params` alone.
        balancer: Scales the terms by their means.
        axis_name: The device axis to reduce over, where the runner has one.
        accumulate: Micro-batches a step; the result is that of the one large batch.

    Returns:
        The step. Its metrics are `loss`, `raw/<term>`, `weighted/<term>`, `grad_norm`
        and, where the optimiser records it, `learning_rate`.

    Raises:
        ValueError: If the stage has no terms, or `accumulate` is below 1.
    """
    stage = get_stage(system, stage_name)
    if not stage.terms:
        raise ValueError(f"Stage {stage_name!r} has no terms, so it is not trained.")
    if accumulate < 1:
        raise ValueError(f"accumulate is at least 1; got {accumulate}.")
    own_reads = [
        name.partition(".")[2]
        for term in stage.terms
        for name in (*term.inputs, term.count or "")
        if name.startswith(f"{stage.name}.")
    ]

    def step(state, frozen, upstream, batch):
        def run_upstream(batch):
            return upstream_tensors(system, stage, upstream, batch)

        def forward(params, batch, up, keys):
            variables = Variables(params, frozen, state.state)
            return stage.forward(variables, batch, up, train=True, key=keys)

        def objective(own, up, batch):
            tensors = {**up, stage.name: own, "batch": with_labelled(batch)}
            terms = [
                term._replace(weight=state.weights.get(term.name, term.weight))
                for term in stage.terms
            ]
            means = term_means(terms, tensors, axis_name=axis_name)
            scale, balance = None, state.balancer
            if balancer is not None:
                stopped = jax.lax.stop_gradient(means)
                scale, balance = balancer.weigh(state.balancer, stopped, None)
            loss, metrics = combine(terms, means, state.step, scale=scale)
            return loss, ({"loss": loss} | metrics, balance)

        keys = step_keys(state, axis_name)
        if accumulate == 1:
            up = run_upstream(batch)

            def loss_fn(params):
                own, new_state = forward(params, batch, up, keys)
                loss, aux = objective(own, up, batch)
                return loss, (aux, new_state)

            grads, (aux, new_state) = jax.grad(loss_fn, has_aux=True)(state.params)
        else:

            def forward_micro(params, batch, up, i):
                local = jax.random.fold_in(keys.local, i)
                return forward(params, batch, up, keys._replace(local=local))

            grads, aux, new_state = accumulated_gradient(
                run_upstream,
                forward_micro,
                objective,
                state.params,
                batch,
                reads=own_reads,
                num_micro=accumulate,
            )
        if axis_name is not None:
            # Inside the loss, the transpose of psum has summed over devices already.
            grads = jax.lax.pmean(grads, axis_name)
            new_state = _mean(new_state, axis_name)
        metrics, balance = aux
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        rate = optax.tree.get(opt_state, "learning_rate")
        if rate is not None:
            metrics["learning_rate"] = rate
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            state=new_state,
            opt_state=opt_state,
            balancer=balance,
        )
        return state, metrics

    return step


def step_keys(state: TrainState, axis_name: str | None) -> StepKeys:
    """Derives the step's keys: its number folded in, then the device's index."""
    shared, local = jax.random.split(jax.random.fold_in(state.key, state.step))
    if axis_name is not None:
        local = jax.random.fold_in(local, jax.lax.axis_index(axis_name))
    return StepKeys(shared, local)


def upstream_tensors(
    system: System, stage: Stage, upstream: Mapping[str, Variables], batch: Batch
) -> dict[str, Tensors]:
    """Reads or runs the earlier stages that `stage` reads, and stops them.

    Returns:
        By stage name, the declared tensors alone.
    """
    cache = batch.get("cache", {})
    position = [other.name for other in system.stages].index(stage.name)
    wanted = list(upstream_inputs(stage))
    for other in reversed(system.stages[:position]):
        if other.name not in cache and any(_of(other, name) for name in wanted):
            wanted += upstream_inputs(other._replace(terms=()))
    found: dict[str, Tensors] = {}
    for other in system.stages[:position]:
        names = [n.partition(".")[2] for n in dict.fromkeys(wanted) if _of(other, n)]
        if not names:
            continue
        if other.name in cache:
            have = cache[other.name]
        elif other.name in upstream:
            variables = upstream[other.name]
            inputs = _select(found, other.needs)
            have, _ = other.forward(variables, batch, inputs, train=False, key=None)
        else:
            raise ValueError(
                f"Stage {stage.name!r} reads {other.name!r}, which is neither in "
                f"upstream nor in the batch's cache."
            )
        missing = [name for name in names if name not in have]
        if missing:
            raise ValueError(
                f"Stage {other.name!r} gives {', '.join(sorted(have))}; "
                f"{stage.name!r} reads {', '.join(missing)}."
            )
        found[other.name] = jax.lax.stop_gradient({n: have[n] for n in names})
    return _select(found, upstream_inputs(stage))


def with_labelled(batch: Batch) -> dict[str, Any]:
    """Adds the mask `labelled f32[b]` where there are labels."""
    batch = dict(batch)
    if "label" in batch and "labelled" not in batch:
        known = batch["label"] >= 0
        known = known if known.ndim == 1 else jnp.all(known, axis=-1)
        batch["labelled"] = known.astype(jnp.float32)
    return batch


def _select(tensors: Mapping[str, Tensors], names: Sequence[str]) -> dict[str, Tensors]:
    """Keeps the tensors named "stage.tensor"."""
    kept: dict[str, Tensors] = {}
    for name in names:
        group, _, key = name.partition(".")
        kept.setdefault(group, {})[key] = tensors[group][key]
    return kept


def _of(stage: Stage, name: str) -> bool:
    return name.startswith(f"{stage.name}.")


def _mean(state: PyTree, axis_name: str) -> PyTree:
    """Averages statistics over devices; counters agree and stay whole numbers."""

    def mean(x):
        inexact = jnp.issubdtype(x.dtype, jnp.inexact)
        return jax.lax.pmean(x, axis_name) if inexact else x

    return jax.tree.map(mean, state)
