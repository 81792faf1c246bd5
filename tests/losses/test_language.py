import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from eegkd.losses import next_token_loss, num_targets
from tests.oracles.losses import next_token as oracle

IGNORED = -100


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, (4, 7)).astype(np.int32)
    labels[0, :3] = labels[1, 5:] = labels[2] = IGNORED
    labels[3, 1:] = IGNORED  # The first token's label is nobody's target.
    tokens = rng.normal(size=(4, 7, 3)).astype(np.float32)
    return tokens, rng.normal(size=(3, 9)).astype(np.float32), labels


@pytest.mark.parametrize(
    "chunk", [3, 100, *(pytest.param(c, marks=pytest.mark.slow) for c in (1, 7))]
)
def test_it_is_the_mean_over_targets(data, chunk):
    loss = jax.jit(functools.partial(next_token_loss, chunk=chunk))
    np.testing.assert_allclose(loss(*data), oracle(*data), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(jax.jit(num_targets)(data[2]), [4, 4, 0, 0])


def test_large_logits_neither_overflow_nor_lose_the_gradient(data):
    tokens, vocabulary, labels = data
    args = 1e3 * tokens, vocabulary, labels
    got = jax.jit(next_token_loss)(*args)
    np.testing.assert_allclose(got, oracle(*args), rtol=1e-5)
    total = jax.grad(lambda x: next_token_loss(x, vocabulary, labels).sum())
    grads = np.asarray(jax.jit(total)(args[0]))
    assert np.isfinite(grads).all()
    assert np.abs(grads[:2]).max() > 0
    assert not np.any(grads[2:])  # No targets, and no gradient either.
    assert not np.any(grads[:, -1])


def test_gradients_are_those_of_differences(data):
    with jax.enable_x64(True):
        tokens, vocabulary = map(np.float64, data[:2])
        loss = jax.jit(lambda x, w: next_token_loss(x, w, data[2], chunk=2))
        assert loss(tokens, vocabulary).dtype == jnp.float64
        check_grads(loss, (tokens, vocabulary), order=1, modes=["rev"])


def test_half_precision_adds_up_in_single(data):
    tokens, vocabulary = (x.astype(jnp.bfloat16) for x in data[:2])
    got = jax.jit(next_token_loss)(tokens, vocabulary, data[2])
    assert got.dtype == jnp.float32
    want = oracle(np.float32(tokens), np.float32(vocabulary), data[2])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_no_more_logits_than_a_chunk_of_them_are_held():
    """Of 4 x 64 tokens over 101 words, 4 x 8 at once; the whole is the control."""
    shapes = [(4, 64, 16), (16, 101), (4, 64)]
    args = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in zip(shapes, ["f4", "f4", "i4"], strict=True)
    ]
    for chunk, whole in ((8, False), (64, True)):
        loss = lambda x, w, y, c=chunk: next_token_loss(x, w, y, chunk=c).sum()
        text = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(*args))
        assert f"f32[4,{chunk},101]" in text
        assert ("f32[4,64,101]" in text) == whole
        assert "f32[8,4,8,101]" not in text


def test_a_chunk_of_none_is_refused(data):
    with pytest.raises(ValueError, match="at least 1"):
        next_token_loss(*data, chunk=0)


def test_a_target_out_of_the_vocabulary_is_never_a_number():
    labels = np.array([[-100, 5], [-100, 4]])
    loss = jax.jit(next_token_loss)(np.zeros((2, 2, 3)), np.ones((3, 5)), labels)
    assert np.isnan(loss[0])
    np.testing.assert_allclose(loss[1], np.log(5), rtol=1e-6)
