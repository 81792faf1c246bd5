"""Gradients of a batch-global loss, one micro-batch in memory at a time."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from eegkd.typing import Array, Batch, PyTree, Tensors

Upstream = dict[str, Tensors]


def accumulated_gradient(
    run_upstream: Callable[[Batch], Upstream],
    forward: Callable[[PyTree, Batch, Upstream, Array], tuple[Tensors, PyTree]],
    objective: Callable[[Tensors, Upstream, Batch], tuple[Array, Any]],
    params: PyTree,
    batch: Batch,
    *,
    reads: Iterable[str],
    num_micro: int,
) -> tuple[PyTree, Any, PyTree]:
    """Differentiates `objective` of the whole batch in two passes over micro-batches.

    A contrastive loss of micro-batches does not add up to that of the batch, so:
    first every micro-batch runs forward without a gradient, and the tensors that terms
    read are kept; the objective and its gradient with respect to those tensors are
    taken on the whole batch; then every micro-batch runs again and carries its part of
    that gradient back to the parameters. Both passes see the same random keys.

    Args:
        run_upstream: Micro-batch -> stopped tensors of earlier stages.
        forward: `(params, micro-batch, upstream, index) -> (tensors, new state)`.
        objective: `(tensors, upstream, batch) -> (loss, aux)`, on the whole batch.
        params: Parameters to differentiate by.
        batch: Arrays with the batch axis first.
        reads: Names of the stage's own tensors that `objective` reads.
        num_micro: Number of parts that the batch is cut into.

    Returns:
        The gradient, `objective`'s aux, and the mean of the new states.

    Note:
        A tensor without a batch axis (a logit scale, class vectors) enters as its mean
        over micro-batches, which is itself unless it is random.

    References:
        Gao et al., "Scaling deep contrastive learning batch size under memory limited
        setup", 2021.
    """
    reads = tuple(dict.fromkeys(reads))
    micros = jax.tree.map(lambda x: _cut(x, num_micro), batch)
    index = jnp.arange(num_micro)

    def run(params, micro, up, i):
        own, new_state = forward(params, micro, up, i)
        kept = {name: own[name] for name in reads if name in own}
        trained = {
            k: x for k, x in kept.items() if jnp.issubdtype(x.dtype, jnp.inexact)
        }
        rest = {k: x for k, x in kept.items() if k not in trained}
        return trained, (rest, new_state)

    def whole(params, batch):
        up = run_upstream(batch)
        trained, (rest, _) = run(params, batch, up, index[0])
        return trained, rest, up

    shapes = jax.eval_shape(whole, params, batch)

    def first(carry, xs):
        i, micro = xs
        up = run_upstream(micro)
        trained, (rest, new_state) = run(params, micro, up, i)
        return carry, ((trained, rest, up), new_state)

    _, ((trained, rest, up), states) = jax.lax.scan(first, None, (index, micros))

    def loss_fn(trained):
        own, others, joined_up = jax.tree.map(_join, (trained, rest, up), shapes)
        return objective(own | others, joined_up, batch)

    cotangents, aux = jax.grad(loss_fn, has_aux=True)(trained)

    def second(total, xs):
        i, micro, up, cotangent = xs
        _, pull, _ = jax.vjp(lambda p: run(p, micro, up, i), params, has_aux=True)
        return jax.tree.map(jnp.add, total, pull(cotangent)[0]), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    grads, _ = jax.lax.scan(second, zeros, (index, micros, up, cotangents))
    return grads, aux, jax.tree.map(_merge, states)


def _cut(x: Array, num_micro: int) -> Array:
    if x.shape[0] % num_micro:
        raise ValueError(
            f"A device's batch of {x.shape[0]} is no multiple of "
            f"accumulate={num_micro}."
        )
    return jnp.reshape(x, (num_micro, x.shape[0] // num_micro, *x.shape[1:]))


def _merge(x: Array) -> Array:
    """Averages over micro-batches; whole numbers (counters) agree, so the first."""
    return jnp.mean(x, axis=0) if jnp.issubdtype(x.dtype, jnp.inexact) else x[0]


def _join(x: Array, whole: jax.ShapeDtypeStruct) -> Array:
    """Undoes the cut, by the shape that the whole batch would give."""
    if x.shape[1:] == whole.shape:
        return _merge(x)
    if whole.ndim and x.shape[0] * x.shape[1] == whole.shape[0]:
        return jnp.reshape(x, whole.shape)
    raise ValueError(
        f"A tensor of shape {whole.shape} has {x.shape[1:]} on a micro-batch: with "
        "accumulate > 1 the batch axis comes first."
    )
