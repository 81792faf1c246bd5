"""Entropic transport against POT's exact solver as epsilon falls."""

import functools

import jax
import numpy as np
import pytest

from eegkd.losses import token_ot
from eegkd.ops import sinkhorn

pytestmark = pytest.mark.parity
ot = pytest.importorskip("ot", reason="needs the parity extra: POT")


def draw(name, n, m):
    rng = np.random.default_rng(4)
    if name == "gaussian":
        return rng.normal(size=(n, 16)), rng.normal(size=(m, 16))
    centres = 3 * rng.normal(size=(4, 3))
    some = lambda k: centres[rng.integers(0, 4, k)] + 0.3 * rng.normal(size=(k, 3))
    return some(n), some(m)


@functools.cache
def solver(value, num_iters=20_000):
    fn = lambda cost, a, b, epsilon: sinkhorn(
        cost,
        epsilon=epsilon,
        num_iters=num_iters,
        row_weights=a,
        column_weights=b,
        value=value,
    )
    return jax.jit(fn)


@pytest.mark.parametrize("name", ["gaussian", "clustered"])
@pytest.mark.parametrize("shape", [(24, 9), (16, 16)])
def test_weighted_sets_tend_to_emd(name, shape):
    rng = np.random.default_rng(5)
    x, y = draw(name, *shape)
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = (w / w.sum() for w in (rng.random(k) + 0.5 for k in shape))
    exact = ot.emd2(a, b, cost)
    gaps = []
    with jax.enable_x64(True):
        for ratio in (10, 50, 250):
            epsilon = cost.max() / ratio
            sharp = solver("transport")(cost, a, b, epsilon)
            assert sharp.error < 1e-6
            gap = sharp.cost - exact
            # Of any two plans the entropies differ by no more than the largest one.
            entropy = -np.sum(a * np.log(a)) - np.sum(b * np.log(b))
            assert -1e-6 * exact < gap <= epsilon * entropy
            regular = solver("entropic")(cost, a, b, epsilon).cost
            assert exact - epsilon * entropy <= regular <= exact + 1e-9
            gaps.append(gap / exact)
    assert gaps[0] > gaps[1] > gaps[2]


def test_token_ot_tends_to_emd():
    x, y = (z.astype(np.float32) for z in draw("gaussian", 20, 20))
    cost = ((x[:, None] - y) ** 2).sum(-1)
    exact = ot.emd2(ot.unif(20), ot.unif(20), cost.astype(np.float64))
    epsilon = float(cost.max() / 1000)
    got = token_ot(x[None], y[None], epsilon=epsilon, num_iters=5000)
    np.testing.assert_allclose(got[0], exact, rtol=1e-3)
