import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eegkd.losses import (
    Balancer,
    Term,
    fixed,
    term_means,
    total_loss,
    weighted_mean,
)

TENSORS = {
    "student": {"x": jnp.array([1.0, 2.0, 3.0, 4.0])},
    "batch": {"count": jnp.array([1, 0, 0, 1]), "label": jnp.array([0, 1, -1, 0])},
}
IDENTITY = Term("a", lambda x: x, ("student.x",))


def test_adds_weighted_means():
    square = Term("b", jnp.square, ("student.x",), 0.5, "batch.count")
    total, metrics = total_loss([IDENTITY, square], TENSORS, 0)
    np.testing.assert_allclose(metrics["raw/a"], 2.5)
    np.testing.assert_allclose(metrics["raw/b"], 8.5)
    np.testing.assert_allclose(metrics["weighted/b"], 4.25)
    np.testing.assert_allclose(total, 6.75)
    assert term_means([IDENTITY, square], TENSORS).keys() == {"a", "b"}


def test_schedules_read_the_step():
    term = IDENTITY._replace(weight=optax.linear_schedule(0.0, 1.0, 10))
    total, _ = jax.jit(lambda step: total_loss([term], TENSORS, step))(jnp.int32(4))
    np.testing.assert_allclose(total, 0.4 * 2.5, rtol=1e-6)


def test_a_count_of_zero_hides_even_a_nan():
    values, counts = jnp.array([1.0, jnp.nan]), jnp.array([1.0, 0.0])
    assert weighted_mean(values, counts) == 1
    assert weighted_mean(values, 0 * counts) == 0


def test_unequal_counts_over_devices_agree_with_one():
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    counts = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0], [2, 0, 1]], np.float32)
    want = (values * counts).sum() / counts.sum()
    got = jax.pmap(functools.partial(weighted_mean, axis_name="i"), "i")(values, counts)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_the_axis_reaches_the_losses_that_have_it():
    seen = []

    def spy(x, *, axis_name=None):
        seen.append(axis_name)
        return x

    spies = [Term("spy", f, ("student.x",)) for f in (spy, functools.partial(spy))]
    terms = [*spies, IDENTITY]
    total_loss(terms, TENSORS, 0)
    jax.vmap(
        lambda x: total_loss(terms, {"student": {"x": x}}, 0, axis_name="i")[0],
        axis_name="i",
    )(jnp.ones((2, 3)))
    assert seen == [None, None, "i", "i"]


def test_a_missing_tensor_is_named():
    with pytest.raises(ValueError, match=r"'student.y'; there are batch.count"):
        total_loss([IDENTITY._replace(inputs=("student.y",))], TENSORS, 0)


def test_fixed_balancer_scales_by_name():
    balancer = fixed({"a": 3.0})
    assert isinstance(balancer, Balancer)
    state = balancer.init(("a", "b"))
    scale, after = balancer.weigh(state, {"a": jnp.ones(()), "b": jnp.ones(())}, None)
    assert {k: float(v) for k, v in scale.items()} == {"a": 3.0, "b": 1.0}
    assert after == state
    total, metrics = total_loss([IDENTITY], TENSORS, 0, scale=scale)
    np.testing.assert_allclose(total, 7.5)
    np.testing.assert_allclose(metrics["weighted/a"], 7.5)
    with pytest.raises(ValueError, match="No term c; the terms are a, b"):
        fixed({"c": 1.0}).init(("a", "b"))
