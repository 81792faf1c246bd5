"""Transport problems of clustered points, and the solver compiled once an option."""

import functools

import jax
import numpy as np

from eegkd.ops import sinkhorn, transport_plan


def clusters(n, m, *, seed=0, ratio=None, shape=()):
    """Costs between clustered 3-d tokens, in units where epsilon is max / ratio."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(4, 3))
    draw = lambda k: (
        centres[rng.integers(0, 4, (*shape, k))] + 0.3 * rng.normal(size=(*shape, k, 3))
    )
    x, y = draw(n), draw(m)
    cost = ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)
    cost = cost.astype(np.float32)
    return cost if ratio is None else (cost, float(cost.max() / ratio))


def uniform(n):
    return np.full(n, 1 / n)


@functools.cache
def solver(**options):
    return jax.jit(lambda cost, epsilon: sinkhorn(cost, epsilon=epsilon, **options))


plan_of = jax.jit(transport_plan)
