"""The paper's insight: attention is entropic transport without the column marginal."""

import jax
import numpy as np
from scipy.optimize import minimize

from eegkd.losses import attention_alignment
from eegkd.models import MultiHeadAlignment

N, M, D, E = 3, 5, 4, 6


def attend(seed=0):
    """Attention of one head, its cost matrix -q k, and the temperature sqrt(d_k)."""
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(1, N, D)), rng.normal(size=(1, M, E))
    module = MultiHeadAlignment(num_heads=1)
    with jax.enable_x64(True):
        params = jax.jit(module.init)(jax.random.key(0), student, teacher)
        params = jax.tree.map(lambda x: 3 * np.float64(x), params)
        out = jax.jit(module.apply)(params, student, teacher)
    kernel = lambda name: np.asarray(params["params"][name]["kernel"])[:, 0]
    cost = -(student[0] @ kernel("query")) @ (teacher[0] @ kernel("key")).T
    return np.asarray(out["attention"][0, 0]), cost, np.sqrt(D)


def objective(plan, cost, epsilon):
    return (plan * cost).sum() + epsilon * (plan * (np.log(plan) - 1)).sum()


def test_softmax_attention_is_the_plan_with_the_row_marginal_alone():
    """It minimises `<P, C> + eps sum P (log P - 1)` over plans with rows 1 / n."""
    attention, cost, epsilon = attend()
    plan = attention / N
    np.testing.assert_allclose(plan.sum(1), 1 / N)
    best = objective(plan, cost, epsilon)

    def rows(free):  # any plan with these rows, by one number an entry
        weights = np.exp(free.reshape(N, M))
        return weights / weights.sum(1, keepdims=True) / N

    found = minimize(
        lambda free: objective(rows(free), cost, epsilon),
        np.random.default_rng(1).normal(size=N * M),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    np.testing.assert_allclose(rows(found.x), plan, atol=1e-5)
    assert found.fun >= best - 1e-12
    # So nothing holds the columns: some teacher tokens are hardly looked at.
    assert np.ptp(plan.sum(0)) > 0.05


def test_one_row_scaling_from_nothing_is_attention_and_the_next_column_is_not():
    """Sinkhorn's first half step is the softmax; its second half leaves it."""
    attention, cost, epsilon = attend(1)
    kernel = np.exp(-cost / epsilon)
    rows = (1 / N) / kernel.sum(1)
    np.testing.assert_allclose(rows[:, None] * kernel, attention / N, rtol=1e-9)
    columns = (1 / M) / (kernel.T @ rows)
    full = rows[:, None] * kernel * columns
    np.testing.assert_allclose(full.sum(0), 1 / M)
    assert np.max(np.abs(full - attention / N)) > 0.01


def test_the_aligned_token_is_the_barycentre_that_the_loss_wants():
    """Of all single targets, the plan's mean of values has the least expected cost."""
    attention, _, _ = attend(2)
    values = np.random.default_rng(2).normal(size=(M, D))
    aligned = attention @ values
    loss = lambda x: sum(
        attention[i, j] * ((x[i] - values[j]) ** 2).sum()
        for i in range(N)
        for j in range(M)
    )
    scatter = loss(aligned)
    moved = aligned + 0.1 * np.random.default_rng(3).normal(size=aligned.shape)
    gap = jax.jit(attention_alignment)(moved[None], aligned[None])
    np.testing.assert_allclose(loss(moved) - scatter, N * gap[0], rtol=1e-4)
