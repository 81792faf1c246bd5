import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegkd.losses import Term, relative_epsilon, token_ot, token_plan, total_loss
from tests.oracles import sinkhorn as oracle

VALUES = ("transport", "entropic", "kl", "divergence")
SLOW, NIGHTLY = pytest.mark.slow, pytest.mark.nightly
COSTS = ("sqeuclidean", "cosine")


def draw(n, m, *, d=5, b=2, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(b, k, d)).astype(np.float32) for k in (n, m))


def naive_cost(x, y, cost):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if cost == "cosine":
        x, y = (z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
        return 1 - x @ y.T
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def naive(x, y, epsilon, num_iters, cost, value):
    """The loss of one example, by its formulas in float64."""
    solve = lambda x, y, value: oracle.value(
        naive_cost(x, y, cost),
        np.full(len(x), 1 / len(x)),
        np.full(len(y), 1 / len(y)),
        epsilon,
        num_iters,
        value,
    )
    if value != "divergence":
        return solve(x, y, value)
    return solve(x, y, "kl") - (solve(x, x, "kl") + solve(y, y, "kl")) / 2


@pytest.mark.parametrize(
    ("value", "cost", "wrap"),
    [
        ("transport", "sqeuclidean", jax.jit),
        ("divergence", "cosine", jax.jit),
        pytest.param("transport", "sqeuclidean", lambda f: f, marks=SLOW),
        pytest.param("entropic", "cosine", jax.jit, marks=NIGHTLY),
        pytest.param("kl", "sqeuclidean", jax.jit, marks=NIGHTLY),
        pytest.param("divergence", "sqeuclidean", jax.jit, marks=NIGHTLY),
    ],
)
def test_matches_numpy(value, cost, wrap):
    """The solver's own values are compared in ops; here is what a loss adds to them."""
    x, y = draw(7, 4)
    epsilon = np.array([0.3, 1.0], np.float32)
    fn = functools.partial(token_ot, num_iters=60, cost=cost, value=value)
    got = wrap(lambda x, y, e: fn(x, y, epsilon=e))(x, y, jnp.asarray(epsilon))
    want = [naive(*xye, 60, cost, value) for xye in zip(x, y, epsilon, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6)
    one = wrap(jax.vmap(lambda x, y, e: fn(x[None], y[None], epsilon=e)[0]))
    np.testing.assert_allclose(one(x, y, jnp.asarray(epsilon)), got, rtol=1e-5)


# What each gradient is the derivative of, by the value that is returned.
MEANING = {
    ("transport", "envelope"): "kl",
    ("transport", "implicit"): "transport",
    ("transport", "unrolled"): "transport",
    ("kl", "envelope"): "kl",
    ("entropic", "implicit"): "entropic",
    ("divergence", "envelope"): "divergence",
    ("divergence", "implicit"): "divergence",
    ("divergence", "unrolled"): "divergence",
}

# Derivatives by the cost are compared in ops: a loss adds the cost's own, and puts a
# divergence together from three problems, in one way for all.
COMMON = {("transport", "implicit"), ("divergence", "envelope")}


@pytest.mark.parametrize(
    ("value", "gradient", "cost"),
    [
        pytest.param(*key, "sqeuclidean", marks=() if key in COMMON else NIGHTLY)
        for key in MEANING
    ]
    + [("transport", "implicit", "cosine")],
)
def test_gradient_by_both_token_sets(value, gradient, cost):
    num_iters = 5 if gradient == "unrolled" else 150
    meant = MEANING[value, gradient]
    with jax.enable_x64(True):
        x, y = (z.astype(np.float64) for z in draw(4, 3, d=3, b=1))
        fn = lambda x, y: token_ot(
            x,
            y,
            epsilon=3.0,
            num_iters=num_iters,
            cost=cost,
            value=value,
            gradient=gradient,
        ).sum()
        total, got = jax.jit(jax.value_and_grad(fn, (0, 1)))(x, y)
        assert total.dtype == jnp.float64
    by_x = lambda x: naive(x, y[0], 3.0, num_iters, cost, meant)
    by_y = lambda y: naive(x[0], y, 3.0, num_iters, cost, meant)
    for fn, at, grad in ((by_x, x[0], got[0]), (by_y, y[0], got[1])):
        want = oracle.numeric_gradient(fn, at, 1e-5)
        np.testing.assert_allclose(grad[0], want, atol=1e-7)


@functools.cache
def value_and_gradients(value, gradient, cost):
    options = {"value": value, "gradient": gradient, "cost": cost, "num_iters": 20}

    def total(x, y, masks):
        return token_ot(x, y, epsilon=0.5, **options, **masks)[0]

    return jax.jit(jax.value_and_grad(total, (0, 1)))


@pytest.mark.slow
@given(
    options=st.sampled_from(
        [
            ("transport", "implicit", "sqeuclidean"),
            ("kl", "unrolled", "sqeuclidean"),
            ("divergence", "envelope", "cosine"),
        ]
    ),
    shift=st.sampled_from([0.0, 100.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=10, deadline=None)
def test_masked_is_trimmed(options, shift, seed):
    x, y = (z + np.float32(shift) for z in draw(6, 6, b=1, d=12, seed=seed))
    rng = np.random.default_rng(seed)
    keep_x, keep_y = (rng.permutation(np.arange(6) < k)[None] for k in (4, 3))
    x = np.where(keep_x[..., None], x, np.nan).astype(np.float32)
    y = np.where(keep_y[..., None], y, 1e6).astype(np.float32)
    run = value_and_gradients(*options)
    got, grads = run(x, y, {"student_mask": keep_x, "teacher_mask": keep_y})
    want, wanted = run(x[keep_x][None], y[keep_y][None], {})
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    for grad, keep, trimmed in zip(grads, (keep_x, keep_y), wanted, strict=True):
        np.testing.assert_array_equal(grad[~keep], 0)
        np.testing.assert_allclose(grad[keep], trimmed[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", ["transport", "divergence"])
def test_the_order_of_tokens_is_nothing(value):
    x, y = draw(7, 4)
    order = np.random.default_rng(1).permutation(7)
    fn = jax.jit(functools.partial(token_ot, epsilon=0.5, value=value))
    np.testing.assert_allclose(fn(x, y), fn(x[:, order], y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("cost", "gradient"),
    [
        ("cosine", "implicit"),
        pytest.param("sqeuclidean", "envelope", marks=SLOW),
        pytest.param("sqeuclidean", "unrolled", marks=SLOW),
    ],
)
def test_divergence_of_equal_sets_is_zero(cost, gradient):
    x, y = draw(9, 9, d=16)
    options = {"value": "divergence", "cost": cost, "gradient": gradient}
    fn = jax.jit(functools.partial(token_ot, epsilon=0.5, **options))
    np.testing.assert_allclose(fn(x, x), 0, atol=2e-6)
    np.testing.assert_allclose(fn(x, x[:, ::-1]), 0, atol=5e-6)
    assert np.all(fn(x, y) > 0.01)
    grad = jax.jit(jax.grad(lambda s: fn(s, x).sum()))(x)
    np.testing.assert_allclose(grad, 0, atol=2e-5)


def test_between_the_assignment_and_the_product_coupling():
    x, y = draw(8, 8)
    fn = jax.jit(functools.partial(token_ot, num_iters=500))
    for epsilon in (1.0, 5.0, 20.0):  # below, 500 iterations do not converge
        got = fn(x, y, epsilon=epsilon)
        for value, s, t in zip(got, x, y, strict=True):
            cost = naive_cost(s, t, "sqeuclidean")
            least = oracle.exact(cost, np.full(8, 1 / 8), np.full(8, 1 / 8))
            assert least - 1e-4 <= value <= cost.mean() + 1e-4


@pytest.mark.parametrize("value", ["transport", "divergence"])
def test_one_token_each(value):
    x, y = draw(1, 1)
    want = ((x - y) ** 2).sum((1, 2))

    @jax.jit
    def run(x):
        got, pull = jax.vjp(lambda x: token_ot(x, y, epsilon=0.1, value=value), x)
        return got, pull(jnp.ones(2))[0]

    got, grad = run(x)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    np.testing.assert_allclose(grad, 2 * (x - y), rtol=1e-4)


@pytest.mark.parametrize(
    ("gradient", "cost"),
    [
        ("envelope", "sqeuclidean"),
        ("implicit", "cosine"),
        ("unrolled", "sqeuclidean"),
        pytest.param("envelope", "cosine", marks=NIGHTLY),
        pytest.param("implicit", "sqeuclidean", marks=NIGHTLY),
        pytest.param("unrolled", "cosine", marks=NIGHTLY),
    ],
)
def test_finite_at_any_scale(gradient, cost):
    x, y = draw(5, 3)
    x[0] = x[0, :1]  # one example of equal tokens
    fn = lambda x: token_ot(x, y, epsilon=0.1, cost=cost, gradient=gradient).sum()
    run = jax.jit(jax.value_and_grad(fn))
    for scale in (0.0, 1e-6, 1.0, 1e6):
        value, grad = run(np.float32(scale) * x)
        assert np.isfinite(value)
        assert np.all(np.isfinite(grad))


@pytest.mark.slow
def test_an_example_without_tokens_is_masked_by_its_count():
    x, y = map(jnp.asarray, draw(5, 3))
    mask = jnp.array([[True] * 5, [False] * 5])
    for value in VALUES:
        fn = lambda x, value=value: token_ot(
            x, y, epsilon=0.5, value=value, student_mask=mask
        )
        values, pull = jax.vjp(fn, x)
        assert values[1] == 0
        (grad,) = pull(jnp.ones(2))
        np.testing.assert_array_equal(grad[1], 0)
        np.testing.assert_allclose(
            values[0], token_ot(x[:1], y[:1], epsilon=0.5, value=value)[0], rtol=1e-5
        )


def test_bfloat16_tokens_are_computed_in_float32():
    x, y = (z.astype(jnp.bfloat16) for z in draw(6, 4))
    fn = jax.jit(functools.partial(token_ot, epsilon=0.5))
    got = fn(x, y)
    want = fn(x.astype(np.float32), y.astype(np.float32))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)
    exact = fn(*draw(6, 4))
    np.testing.assert_allclose(got, exact, rtol=2e-2)


@pytest.mark.filterwarnings("ignore:.*NormalCG")
@pytest.mark.parametrize(
    ("value", "gradient"),
    [
        pytest.param(v, g, marks=SLOW if (v, g) in COMMON else NIGHTLY)
        for v in VALUES
        for g in ("envelope", "implicit")
    ],
)
def test_ott_behind_the_same_function(value, gradient):
    x, y = draw(6, 5)
    fn = lambda x, solver: token_ot(
        x, y, epsilon=1.0, value=value, gradient=gradient, solver=solver
    ).sum()
    run = jax.jit(jax.value_and_grad(fn), static_argnums=1)
    got, want = run(x, "scaling"), run(x, "ott")
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("cost", COSTS)
def test_relative_epsilon_is_a_part_of_the_mean_cost(cost):
    x, y = draw(6, 5)
    masks = {
        "student_mask": np.array([[True] * 6, [False, True] * 3]),
        "teacher_mask": np.array([[True] * 4 + [False], [True] * 5]),
    }
    part = jax.jit(relative_epsilon, static_argnames=("fraction", "cost"))
    got = part(x, y, fraction=0.1, cost=cost, **masks)
    kept = zip(x, y, *masks.values(), strict=True)
    want = [0.1 * naive_cost(s[a], t[b], cost).mean() for s, t, a, b in kept]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    fn = lambda x: relative_epsilon(x, y, cost=cost).sum()
    np.testing.assert_array_equal(jax.jit(jax.grad(fn))(x), 0)
    same = np.ones((1, 3, 4), np.float32)
    if cost == "sqeuclidean":
        assert part(same, same, fraction=0.2)[0] == np.float32(0.2)


def test_relative_epsilon_makes_the_loss_follow_the_scale():
    x, y = draw(6, 5)

    @jax.jit
    def fn(x, y):
        return token_ot(x, y, epsilon=relative_epsilon(x, y, fraction=0.05))

    np.testing.assert_allclose(fn(30 * x, 30 * y), 900 * fn(x, y), rtol=1e-4)


def test_the_plan_is_that_of_the_loss():
    x, y = draw(6, 5)
    mask = np.array([[True] * 4 + [False] * 2] * 2)
    options = {"epsilon": 0.5, "num_iters": 200, "student_mask": mask}
    plan, solved = jax.jit(functools.partial(token_plan, **options))(x, y)
    loss = jax.jit(functools.partial(token_ot, **options))(x, y)
    cost = np.stack(
        [naive_cost(*pair, "sqeuclidean") for pair in zip(x, y, strict=True)]
    )
    np.testing.assert_allclose((plan * cost).sum((1, 2)), loss, rtol=1e-4)
    np.testing.assert_allclose(plan.sum(2), mask / 4, atol=1e-5)
    np.testing.assert_allclose(plan.sum(1), 1 / 5, atol=1e-6)
    assert np.all(solved.error < 1e-4)


def test_as_a_term():
    x, y = draw(6, 5)
    fn = jax.jit(functools.partial(token_ot, epsilon=0.5))
    term = Term("ot", fn, ("student.tokens", "teacher.tokens"), 0.1)
    tensors = {"student": {"tokens": x}, "teacher": {"tokens": y}}
    total, metrics = jax.jit(lambda tensors: total_loss([term], tensors, 0))(tensors)
    np.testing.assert_allclose(total, 0.1 * fn(x, y).mean(), rtol=1e-6)
    assert set(metrics) == {"raw/ot", "weighted/ot"}


def test_bad_arguments():
    x, y = draw(4, 3)
    with pytest.raises(ValueError, match="got 'manhattan'"):
        token_ot.__wrapped__(x, y, epsilon=1.0, cost="manhattan")
    with pytest.raises(ValueError, match="got 'sharp'"):
        token_ot.__wrapped__(x, y, epsilon=1.0, value="sharp")
    with pytest.raises(ValueError, match="project the student"):
        token_ot.__wrapped__(x, y[..., :2], epsilon=1.0)
    with pytest.raises(ValueError, match="above zero"):
        token_ot(x, y, epsilon=0.0)
