import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.models import Bert, BertConfig, Prompts

TINY = BertConfig(
    vocab_size=30, dim=16, depth=3, num_heads=2, ffn_dim=24, max_positions=12
)
IDS = np.random.default_rng(0).integers(0, 30, (2, 7))
MASK = np.arange(7) < np.array([[7], [4]])


def count(cfg: BertConfig) -> int:
    ids = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(Bert(cfg).init, jax.random.key(0), ids)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def variables_of(cfg=TINY, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(Bert(cfg).init, jax.random.key(0), IDS)
    return jax.tree.map(
        lambda leaf: np.asarray(0.3 * rng.normal(size=leaf.shape), np.float32), shapes
    )


@jax.jit
def encode(variables, ids, mask, prompts=None):
    return Bert(TINY).apply(variables, ids, mask, prompts=prompts)


def prompts_of(num=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(TINY.depth, num, TINY.dim)).astype(np.float32)


@pytest.mark.parametrize(
    ("sizes", "want"),
    [
        ({}, 109_482_240),
        ({"dim": 256, "num_heads": 4, "ffn_dim": 1024}, 17_488_640),
        ({"dim": 128, "num_heads": 2, "ffn_dim": 512}, 6_368_640),
    ],
)
def test_counts(sizes, want):
    assert count(BertConfig(**sizes)) == want


def test_tensors_and_an_optional_pooler():
    out = encode(variables_of(), IDS, MASK)
    assert set(out) == {
        "embed",
        "tokens",
        "cls",
        "pooled",
        *map("block_{}".format, range(3)),
    }
    chex.assert_shape([out["embed"], out["block_0"], out["tokens"]], (2, 7, 16))
    np.testing.assert_array_equal(out["tokens"], out["block_2"])
    np.testing.assert_array_equal(out["cls"], out["tokens"][:, 0])
    without = dataclasses.replace(TINY, pooler=False)
    assert "pooled" not in jax.eval_shape(
        lambda: Bert(without).apply(variables_of(without), IDS)
    )
    assert count(TINY) - count(without) == 16 * 16 + 16


def test_masked_tokens_change_nothing():
    variables = variables_of()
    other = np.where(MASK, IDS, (IDS + 11) % 30)
    a, b = (encode(variables, ids, MASK)["cls"] for ids in (IDS, other))
    np.testing.assert_allclose(a, b, atol=1e-6)
    shorter = encode(variables, IDS[1:, :4], np.ones((1, 4), bool))["cls"]
    np.testing.assert_allclose(shorter[0], a[1], atol=1e-5)


def test_prompts_act_as_tokens_that_every_layer_replaces():
    variables, prompts = variables_of(), prompts_of()
    got = encode(variables, IDS, MASK, prompts)
    x = encode(variables, IDS, MASK)["embed"]
    for i in range(TINY.depth):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], variables["params"]["layers"])
        shared = np.broadcast_to(prompts[i], (2, *prompts[i].shape))
        both = np.concatenate([x[:, :1], shared, x[:, 1:]], axis=1)
        keep = np.concatenate([MASK[:, :1], np.ones((2, 2), bool), MASK[:, 1:]], 1)
        y = plain_layer(layer, both, keep, TINY)
        x = np.concatenate([y[:, :1], y[:, 3:]], axis=1)
        np.testing.assert_allclose(got[f"block_{i}"], x, rtol=1e-3, atol=1e-5)


def plain_layer(p, x, keep, cfg):
    def dense(x, name):
        return x @ np.float64(p[name]["kernel"]) + p[name]["bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + cfg.eps)
        return scaled * p[name]["scale"] + p[name]["bias"]

    e = cfg.dim // cfg.num_heads
    q, k, v = (dense(x, name) for name in ("query", "key", "value"))
    mixed = np.zeros_like(q)
    for h in range(cfg.num_heads):
        part = slice(h * e, (h + 1) * e)
        scores = np.einsum("bld,bmd->blm", q[..., part], k[..., part]) / np.sqrt(e)
        weights = np.exp(scores) * keep[:, None]
        weights /= weights.sum(-1, keepdims=True)
        mixed[..., part] = weights @ v[..., part]
    x = norm(x + dense(mixed, "attention_out"), "attention_norm")
    hidden = dense(x, "up")
    erf = np.vectorize(math.erf)
    hidden = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))
    return norm(x + dense(hidden, "down"), "norm")


def test_gradients_reach_prompts_alone_when_the_tower_is_frozen():
    owner = Prompts(depth=3, num_prompts=2, dim=16)
    params = jax.jit(owner.init)(jax.random.key(0))
    variables = variables_of()

    def loss(params):
        return encode(variables, IDS, MASK, owner.apply(params))["cls"].sum()

    gradient = jax.jit(jax.grad(loss))(params)["params"]["prompts"]
    assert gradient.shape == (3, 2, 16)
    assert (np.abs(gradient).max(axis=(1, 2)) > 0).all()


def test_dropout_needs_training():
    variables = variables_of()

    @jax.jit
    def train(key):
        rngs = {"dropout": key}
        return Bert(TINY).apply(variables, IDS, train=True, rngs=rngs)["cls"]

    a, b = train(jax.random.key(0)), train(jax.random.key(1))
    assert np.abs(a - b).max() > 1e-3


def test_wrong_sizes_are_refused():
    variables = variables_of()
    with pytest.raises(ValueError, match="13 tokens, more than 12"):
        Bert(TINY).apply(variables, np.zeros((1, 13), np.int32))
    with pytest.raises(ValueError, match=r"\(2, 2, 16\)"):
        Bert(TINY).apply(variables, IDS, prompts=prompts_of()[:2])
    with pytest.raises(ValueError, match="num_heads=3"):
        BertConfig(num_heads=3, dim=16)
