import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.losses import (
    attention_alignment,
    fitnet,
    negative_entropy,
    token_cosine,
    uld,
)
from eegkd.ops.mixing import mix_layers, standardise
from eegkd.ops.rank import effective_rank
from tests.oracles import losses as oracles


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_features_of_any_rank():
    student, teacher = draw(2, 3, 4, 5)
    for fn in map(jax.jit, (fitnet, token_cosine)):
        flat = fn(student.reshape(3, 2, 10), teacher.reshape(3, 2, 10))
        assert flat.shape == fn(student, teacher).shape == (3,)
    np.testing.assert_allclose(
        jax.jit(fitnet)(student[:, 0], teacher[:, 0]),
        ((student[:, 0] - teacher[:, 0]) ** 2).mean(-1),
        rtol=1e-5,
    )


@pytest.mark.parametrize("fn", [fitnet, token_cosine, attention_alignment])
def test_unlike_widths_are_refused(fn):
    with pytest.raises(ValueError, match="differ"):
        fn.__wrapped__(jnp.ones((1, 2, 3)), jnp.ones((1, 2, 4)))


def test_negative_entropy_is_least_at_uniform_and_finite_at_one_layer():
    weights = np.float32([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    total = jax.value_and_grad(lambda w: negative_entropy(w).sum())
    values, grad = jax.jit(total)(weights)
    np.testing.assert_allclose(values, -np.log(4), rtol=1e-5)
    assert np.all(np.isfinite(grad))


def test_a_mixture_of_normalised_layers():
    layers, weights = draw(3, 2, 4, 5), np.abs(draw(2, 3, seed=1))
    want = sum(
        weights[:, i, None, None] * oracles.standardise(layers[i].astype(np.float64))
        for i in range(3)
    )
    np.testing.assert_allclose(mix_layers(list(layers), weights), want, rtol=1e-4)
    one = jnp.array([0.0, 1.0, 0.0])
    np.testing.assert_array_equal(mix_layers(list(layers), one), standardise(layers[1]))
    np.testing.assert_array_equal(
        mix_layers(list(layers), one, normalise=False), layers[1]
    )
    with pytest.raises(ValueError, match="3 weights for 2 layers"):
        mix_layers(list(layers[:2]), one)


def test_normalising_both_sides_lets_a_mixture_be_matched():
    """The error that no student can undo: 0 with the norm, half without."""
    layers = draw(13, 1, 50, 200)

    @jax.jit
    def errors(layers):
        mixed = mix_layers(list(layers), jnp.full(13, 1 / 13))
        best = standardise(mixed)
        return fitnet(best, mixed, normalise=True)[0], fitnet(best, mixed)[0]

    normal, plain = errors(layers)
    assert normal < 1e-6
    np.testing.assert_allclose(plain, 0.52, atol=0.02)


def test_effective_rank_counts_directions():
    line = np.outer(np.arange(6.0), [1, 2, 0]).astype(np.float32)
    corners = np.concatenate([np.eye(4), -np.eye(4)]).astype(np.float32)
    rank = jax.jit(effective_rank)
    np.testing.assert_allclose(rank(line), 1, rtol=1e-3)
    np.testing.assert_allclose(rank(corners), 4, rtol=1e-4)
    np.testing.assert_allclose(rank(0 * line), 1, rtol=1e-4)
    assert rank(draw(2, 8, 3)).shape == (2,)


def test_uld_does_not_see_the_order_of_a_vocabulary():
    student, teacher = draw(2, 5, 7), draw(2, 5, 9, seed=1)
    distance = jax.jit(uld)
    want = distance(student, teacher)
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_allclose(distance(student, teacher[..., order]), want, rtol=1e-6)
    np.testing.assert_allclose(distance(student, student[..., ::-1]), 0, atol=1e-6)
    np.testing.assert_allclose(
        want, oracles.uld(student.astype(float), teacher.astype(float)), rtol=1e-5
    )


def test_uld_is_at_most_two_a_position():
    student = np.zeros((1, 3, 1000), np.float32)
    teacher = np.zeros((1, 3, 2), np.float32)
    teacher[..., 0] = 1e4
    got = jax.jit(uld)(student, teacher)
    np.testing.assert_allclose(got, 3 * 2 * 0.999, rtol=1e-5)


@pytest.mark.slow
def test_uld_compares_answers_wherever_they_stand():
    student, teacher = draw(1, 7, 4), draw(1, 6, 5, seed=1)
    s_mask = np.array([[False, True, False, True, True, False, False]])
    t_mask = np.array([[False, False, True, True, False, False]])
    answers = student[:, [1, 3]], teacher[:, [2, 3]]
    want, wanted = jax.value_and_grad(lambda s: uld(s, answers[1]).sum())(
        jnp.asarray(answers[0])
    )
    student[:, ~s_mask[0]], teacher[:, ~t_mask[0]] = np.nan, np.inf
    run = lambda s: uld(s, jnp.asarray(teacher), s_mask, t_mask).sum()
    got, grad = jax.value_and_grad(run)(jnp.asarray(student))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(grad[:, [1, 3]], wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(grad[:, [0, 2, 4, 5, 6]], 0)
    nothing = uld(jnp.asarray(student), jnp.asarray(teacher), s_mask & False, t_mask)
    np.testing.assert_array_equal(nothing, 0)


def test_uld_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match="got 0"):
        uld(draw(1, 2, 3), draw(1, 2, 3), temperature=0.0)
