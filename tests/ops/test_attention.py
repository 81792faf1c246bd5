"""Attention against a loop over queries in float64; its forms against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegkd.ops import attention
from eegkd.ops.attention import dot_product_attention

FORMS = ["plain", "xla"]


def draw(b, n, m, h, g, e, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = ((b, n, h, e), (b, m, g, e), (b, m, g, e))
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def oracle(q, k, v, keep=None, scale=None):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    (b, n, h, e), (m, g) = q.shape, k.shape[1:3]
    keep = np.ones((b, h, n, m), bool) if keep is None else keep
    keep = np.broadcast_to(keep, (b, h, n, m))
    scale = 1 / np.sqrt(e) if scale is None else scale
    out = np.zeros(q.shape)
    for i, j, t in np.ndindex(b, h, n):
        seen = np.flatnonzero(keep[i, j, t])
        if seen.size:
            head = j // (h // g)
            score = scale * k[i, seen, head] @ q[i, t, j]
            p = np.exp(score - score.max())
            out[i, t, j] = (p / p.sum()) @ v[i, seen, head]
    return out


ATTEND = jax.jit(
    dot_product_attention, static_argnames=("causal", "scale", "implementation")
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("h", "g"), [(4, 4), (6, 2), (3, 1)])
def test_equals_a_loop_over_queries(form, h, g):
    q, k, v = draw(2, 3, 5, h, g, 4)
    got = ATTEND(q, k, v, scale=0.3, implementation=form)
    np.testing.assert_allclose(got, oracle(q, k, v, scale=0.3), atol=2e-6)
    rng = np.random.default_rng(1)
    for sizes in ((2, h, 3), (2, 1, 1), (1, 1, 3)):
        mask = rng.random((*sizes, 5)) < 0.6
        got = ATTEND(q, k, v, mask=mask, implementation=form)
        np.testing.assert_allclose(got, oracle(q, k, v, mask), atol=2e-6)


@settings(max_examples=50)
@given(st.integers(0, 2**15 - 1), st.integers(0, 99))
def test_any_mask_is_obeyed(bits, seed):
    q, k, v = draw(1, 3, 5, 2, 1, 4, seed)
    mask = ((bits >> np.arange(15)) & 1).astype(bool).reshape(1, 1, 3, 5)
    want = oracle(q, k, v, mask)
    np.testing.assert_allclose(ATTEND(q, k, v, mask=mask), want, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_causal_sees_no_later_key(form):
    q, k, v = draw(2, 6, 6, 4, 2, 3)
    lower = np.tri(6, dtype=bool)
    got = ATTEND(q, k, v, causal=True, implementation=form)
    np.testing.assert_allclose(got, oracle(q, k, v, lower), atol=2e-6)
    left = (np.arange(6) >= np.array([[0], [2]]))[:, None, None]
    got = ATTEND(q, k, v, mask=left, causal=True, implementation=form)
    np.testing.assert_allclose(got, oracle(q, k, v, lower & left), atol=2e-6)
    np.testing.assert_array_equal(got[1, :2], 0)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_agree_and_are_finite_beside_empty_rows(form):
    q, k, v = draw(2, 4, 4, 4, 2, 3)
    mask = np.ones((2, 1, 4, 4), bool)
    mask[1, :, :2] = False
    mask[:, :, :, 3] = False

    def loss(args, form):
        out = dot_product_attention(*args, mask=mask, implementation=form)
        return jnp.sum(jnp.sin(out) * (1 + jnp.arange(3)))

    dq, dk, dv = jax.jit(jax.grad(loss), static_argnums=1)((q, k, v), form)
    np.testing.assert_array_equal(dq[1, :2], 0)
    for x in (dk, dv):
        np.testing.assert_array_equal(x[:, 3], 0)
        assert float(jnp.abs(x[:, :3]).min()) > 0
    with jax.enable_x64(True):
        loss = jax.jit(loss, static_argnums=1)
        args = [np.asarray(x, np.float64) for x in (q, k, v)]
        for x, got in zip(range(3), (dq, dk, dv), strict=True):
            step = 1e-6 * np.random.default_rng(x).normal(size=args[x].shape)
            up, down = (
                [a + s * step if i == x else a for i, a in enumerate(args)]
                for s in (1, -1)
            )
            change = (loss(up, "plain") - loss(down, "plain")) / 2
            np.testing.assert_allclose((got * step).sum(), change, rtol=1e-4)


def test_half_precision_keeps_its_type_and_float64_its_digits():
    q, k, v = draw(2, 5, 7, 4, 2, 8)
    half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    got = ATTEND(*half)
    assert got.dtype == jnp.bfloat16
    want = oracle(*(np.asarray(x, np.float64) for x in half))
    np.testing.assert_allclose(np.float64(got), want, atol=0.02)
    other = ATTEND(*half, implementation="xla")
    np.testing.assert_allclose(np.float64(got), np.float64(other), atol=0.02)
    with jax.enable_x64(True):
        wide = [jnp.asarray(x, jnp.float64) for x in (q, k, v)]
        got = ATTEND(*wide)
        np.testing.assert_allclose(got, oracle(*wide), atol=1e-14)


def test_large_scores_do_not_overflow():
    q, k, v = draw(1, 3, 3, 1, 1, 4)
    got = ATTEND(1e4 * q, 1e4 * k, v, causal=True)
    assert bool(jnp.isfinite(got).all())


def test_cudnn_is_chosen_where_it_runs_and_only_there(monkeypatch):
    q, k, _ = draw(1, 4, 4, 2, 1, 8, dtype=jnp.bfloat16)
    assert not attention._fused(q, k, None)  # The tests run on a CPU.

    class Client:
        platform_version = "PJRT C API\ncuda 13000"

    class Device:
        client, compute_capability = Client(), "9.0"

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    mask = np.ones((1, 1, 4, 4), bool)
    assert attention._fused(q, k, None)
    assert attention._fused(q, k, mask)
    assert attention._fused(q[:, :3], k, None)
    assert not attention._fused(q[:, :3], k, mask[:, :, :3])
    assert not attention._fused(q[:, :1], k, None)
    assert not attention._fused(q[..., :6], k[..., :6], None)
    assert not attention._fused(q.astype(np.float32), k.astype(np.float32), None)
    Device.compute_capability = "7.5"
    assert not attention._fused(q, k, None)


def test_wrong_arguments_are_refused():
    q, k, v = draw(1, 4, 5, 4, 2, 8)
    with pytest.raises(ValueError, match="4 and 5"):
        dot_product_attention(q, k, v, causal=True)
    with pytest.raises(ValueError, match="g dividing h"):
        dot_product_attention(q[:, :, :3], k, v)
    with pytest.raises(ValueError, match="got flash"):
        dot_product_attention(q, k, v, implementation="flash")
