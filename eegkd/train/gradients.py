"""Gradients of a stage's terms: of their weighted sum, and of each alone."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import optax

from eegkd.losses import Term, term_means
from eegkd.systems import Stage, System, get_stage
from eegkd.train.accumulate import accumulated_gradient
from eegkd.train.inputs import step_keys, upstream_tensors, with_labelled
from eegkd.typing import Array, PyTree, Variables

Objective = Callable[[dict[str, Array]], tuple[Array, Any]]
"""The terms' raw means by name -> a loss and further results."""


def bind_gradient(
    system: System, stage: Stage, *, axis_name: str | None, accumulate: int
) -> Callable[..., Callable[[Objective], tuple[PyTree, Any, PyTree]]]:
    """Returns `bind(state, frozen, upstream, batch) -> take`.

    `take(objective)` is the gradient by `state.params` of a function of the terms'
    means, with its further results and the stage's new state; gradient and state are
    those of all devices. Every `take` of one `bind` sees the same random keys.
    """
    own_reads = [
        name.partition(".")[2]
        for term in stage.terms
        for name in (*term.inputs, term.count or "")
        if name.startswith(f"{stage.name}.")
    ]

    def bind(state, frozen, upstream, batch):
        keys = step_keys(state, axis_name)

        def run_upstream(batch):
            return upstream_tensors(system, stage, upstream, batch)

        def forward(params, batch, up, keys):
            variables = Variables(params, frozen, state.state)
            return stage.forward(variables, batch, up, train=True, key=keys)

        def forward_micro(params, batch, up, i):
            local = jax.random.fold_in(keys.local, i)
            return forward(params, batch, up, keys._replace(local=local))

        def take(objective):
            def of_tensors(own, up, batch):
                tensors = {**up, stage.name: own, "batch": with_labelled(batch)}
                return objective(term_means(stage.terms, tensors, axis_name=axis_name))

            if accumulate == 1:
                up = run_upstream(batch)

                def loss_fn(params):
                    own, new_state = forward(params, batch, up, keys)
                    loss, aux = of_tensors(own, up, batch)
                    return loss, (aux, new_state)

                grads, (aux, new_state) = jax.grad(loss_fn, has_aux=True)(state.params)
            else:
                grads, aux, new_state = accumulated_gradient(
                    run_upstream,
                    forward_micro,
                    of_tensors,
                    state.params,
                    batch,
                    reads=own_reads,
                    num_micro=accumulate,
                )
            if axis_name is not None:
                # In the loss, the transpose of psum has summed over devices already.
                grads = jax.lax.pmean(grads, axis_name)
                new_state = _mean(new_state, axis_name)
            return grads, aux, new_state

        return take

    return bind


def term_gradients(
    take: Callable[[Objective], tuple[PyTree, Any, PyTree]],
    terms: Sequence[Term],
    shared: Sequence[str] = (),
) -> dict[str, list[Array]]:
    """Computes the gradient of each term's raw mean alone.

    Args:
        take: Result of `bind_gradient`.
        terms: The stage's terms.
        shared: Beginnings of the paths of the parameters wanted; none given is all.

    Returns:
        The gradients of those parameters, by term.

    Raises:
        ValueError: If a name begins no parameter's path.
    """
    found = {}
    for term in terms:
        grads, _, _ = take(lambda means, name=term.name: (means[name], None))
        leaves = {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        }
        for name in shared:
            if not any(_begins(name, path) for path in leaves):
                raise ValueError(
                    f"No parameter begins with {name!r}; there are {', '.join(leaves)}."
                )
        found[term.name] = [
            leaf
            for path, leaf in leaves.items()
            if not shared or any(_begins(name, path) for name in shared)
        ]
    return found


def make_gradient_report(
    system: System,
    stage_name: str,
    *,
    axis_name: str | None = None,
    accumulate: int = 1,
    shared: Sequence[str] = (),
) -> Callable[..., tuple[Any, dict[str, Array]]]:
    """Builds `report(state, frozen, upstream, batch) -> (state, metrics)`.

    It changes nothing. Its metrics are `grad_norm/<term>`, the norm of the weighted
    term's gradient, and `grad_cosine/<term>/<term>` of each pair (0 where one has no
    gradient): below zero the two are at odds. Balancers' scales are left out.

    A report is one pass back through the model per term. So it is run every so many
    steps, apart from the training step: any runner takes it for a step, and `train`'s
    `evaluate` may return its metrics. Where the runner donates its state, give it a
    copy.

    Args:
        system: System of the stage.
        stage_name: Name of the stage.
        axis_name: As for `make_train_step`.
        accumulate: As for `make_train_step`.
        shared: Parameters to report on, as `Balancer.shared`.
    """
    stage = get_stage(system, stage_name)
    bind = bind_gradient(system, stage, axis_name=axis_name, accumulate=accumulate)

    def report(state, frozen, upstream, batch):
        take = bind(state, frozen, upstream, batch)
        grads = term_gradients(take, stage.terms, shared)
        norms = {name: optax.tree.norm(grad) for name, grad in grads.items()}
        metrics = {}
        for term in stage.terms:
            weight = state.weights.get(term.name, term.weight)
            weight = weight(state.step) if callable(weight) else weight
            metrics[f"grad_norm/{term.name}"] = jnp.abs(weight) * norms[term.name]
        for a, b in combinations(grads, 2):
            both = norms[a] * norms[b]
            cosine = optax.tree.vdot(grads[a], grads[b]) / jnp.where(both > 0, both, 1)
            metrics[f"grad_cosine/{a}/{b}"] = cosine
        return state, metrics

    return report


def _begins(name: str, path: str) -> bool:
    return f"{path}/".startswith(f"{name}/")


def _mean(state: PyTree, axis_name: str) -> PyTree:
    """Averages statistics over devices; counters agree and stay whole numbers."""

    def mean(x):
        inexact = jnp.issubdtype(x.dtype, jnp.inexact)
        return jax.lax.pmean(x, axis_name) if inexact else x

    return jax.tree.map(mean, state)
