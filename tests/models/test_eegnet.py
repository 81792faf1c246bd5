import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.models import EEGNet, EEGNetConfig
from eegkd.models.eegnet import bound_norm, mean_pool


def shapes_of(cfg, t):
    signal = jnp.zeros((2, cfg.n_chans, t))
    return jax.eval_shape(EEGNet(cfg).init, jax.random.key(0), signal)


@pytest.mark.parametrize(
    ("c", "t", "k", "want"),
    [(22, 800, 4, 3060), (64, 800, 4, 3732), (22, 1000, 4, 3444)],
)
def test_published_counts(c, t, k, want):
    params = shapes_of(EEGNetConfig(n_chans=c, n_outputs=k), t)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == want


def test_kernels_scale_with_the_rate():
    params = shapes_of(EEGNetConfig(rate=200.0), 800)["params"]
    assert params["temporal"].shape == (100, 8)
    assert params["depthwise"].shape == (25, 16)


def test_forward_equals_numpy():
    cfg = EEGNetConfig(n_chans=3, n_outputs=2, rate=12.0, num_filters=2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 70)).astype(np.float32)
    variables = jax.tree.map(
        lambda leaf: np.abs(rng.normal(size=leaf.shape)).astype(np.float32),
        shapes_of(cfg, 70),
    )
    got = jax.jit(EEGNet(cfg).apply)(variables, x)
    p, stats = variables["params"], variables["batch_stats"]

    def norm(x, name):
        scaled = (x - stats[name]["mean"]) / np.sqrt(stats[name]["var"] + 1e-3)
        return scaled * p[name]["scale"] + p[name]["bias"]

    def same(signal, kernel):
        k = len(kernel)
        padded = np.pad(signal, ((k - 1) // 2, k // 2))
        return np.array([padded[i : i + k] @ kernel for i in range(len(signal))])

    def elu(x):
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))

    h = np.zeros((2, 3, 70, 2))
    for b, c, f in np.ndindex(2, 3, 2):
        h[b, c, :, f] = same(x[b, c], p["temporal"][:, f])
    h = norm(h, "temporal_norm")
    spatial = p["spatial"] / np.maximum(1, np.sqrt((p["spatial"] ** 2).sum(0)))
    h = np.einsum("bctf,cfm->btfm", h, spatial).reshape(2, 70, 4)
    h = elu(norm(h, "spatial_norm"))[:, :68].reshape(2, 17, 4, 4).mean(2)
    for b, d in np.ndindex(2, 4):
        h[b, :, d] = same(h[b, :, d], p["depthwise"][:, d])
    h = elu(norm(h @ p["pointwise"]["kernel"], "separable_norm"))
    h = h[:, :16].reshape(2, 2, 8, 4).mean(2)
    head = p["head"] / np.maximum(1, np.sqrt((p["head"] ** 2).sum(0)) / 0.25)
    np.testing.assert_allclose(got["tokens"], h, rtol=1e-4)
    np.testing.assert_allclose(got["pooled"], h.mean(1), rtol=1e-4)
    want = h.reshape(2, -1) @ head + p["head_bias"]
    np.testing.assert_allclose(got["logits"], want, rtol=1e-4)


def test_training_returns_new_statistics_and_every_gradient():
    cfg = EEGNetConfig(n_chans=3)
    x = np.random.default_rng(0).normal(size=(4, 3, 64)).astype(np.float32)
    variables = jax.jit(EEGNet(cfg).init)(jax.random.key(1), x)

    def loss(params):
        out, state = EEGNet(cfg).apply(
            {**variables, "params": params},
            x,
            train=True,
            rngs={"dropout": jax.random.key(2)},
            mutable=["batch_stats"],
        )
        return jnp.sum(
            out["logits"] * jnp.array([1.0, -2.0]) + out["logits"] ** 2
        ), state

    gradients, state = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    chex.assert_tree_all_finite(gradients)
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradients))
    chex.assert_trees_all_equal_shapes(state["batch_stats"], variables["batch_stats"])


def test_norms_are_bounded_and_small_ones_are_left_alone():
    weights = np.array([[3.0, 0.3], [4.0, 0.4]], np.float32)
    got = bound_norm(weights, 1.0, axes=0)
    np.testing.assert_allclose(got, [[0.6, 0.3], [0.8, 0.4]], rtol=1e-6)


def test_mean_pool_drops_an_incomplete_window():
    x = np.arange(14.0).reshape(1, 7, 2)
    np.testing.assert_allclose(mean_pool(x, 3)[0], [[2, 3], [8, 9]])


def test_short_signals_and_wrong_channels_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 19, 31\)"):
        shapes_of(EEGNetConfig(), 31)
