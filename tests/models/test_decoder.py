"""The decoder against NumPy; padding, cache, policies and sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.models import (
    Decoder,
    DecoderConfig,
    LoraConfig,
    apply_adapted,
    find_linears,
    init_adapters,
)
from eegkd.models.decoder import PRESETS as DECODERS
from tests.oracles.decoder import decode
from tests.support.decoders import LLAMA, padded, random_params

QWEN2 = dataclasses.replace(LLAMA, qkv_bias=True, tied=True, rope_theta=50.0)
LINEARS = tuple(
    f"layers/{name}" for name in ("query", "key", "value", "out", "gate", "up", "down")
)
TEXTS = [
    np.random.default_rng(i).integers(0, LLAMA.vocab_size, length)
    for i, length in enumerate((7, 4, 1))
]


def run(cfg, params, ids=None, mask=None, **options):
    call = jax.jit(
        lambda params, ids, mask, embeds, cache: Decoder(cfg).apply(
            {"params": params}, ids, mask, embeds=embeds, cache=cache, **options
        )
    )
    return lambda **given: call(
        params,
        given.get("ids"),
        given.get("mask"),
        given.get("embeds"),
        given.get("cache"),
    )


CONFIGS = {"llama": LLAMA, "qwen2": QWEN2}


@pytest.fixture(scope="module", params=["llama"])
def model(request):
    cfg = CONFIGS[request.param]
    params = random_params(cfg)
    return cfg, params, run(cfg, params), [decode(params, cfg, text) for text in TEXTS]


@pytest.mark.parametrize("model", CONFIGS, indirect=True)
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_layer_is_numpys(model, side):
    _, _, call, wants = model
    ids, mask = padded(TEXTS, side)
    got = call(ids=ids, mask=mask)
    assert set(got) == {"embed", "block_0", "block_2", "tokens", "logits"}
    for i, (blocks, tokens, logits) in enumerate(wants):
        for name, want in (
            ("block_0", blocks[0]),
            ("block_2", blocks[2]),
            ("tokens", tokens),
            ("logits", logits),
        ):
            error = np.abs(got[name][i][mask[i]] - want).max()
            assert error < 2e-5 * np.abs(want).max(), (name, i)


def test_embeddings_are_what_ids_stand_for(model):
    cfg, params, call, _ = model
    ids, mask = padded(TEXTS, "left")
    embeds = Decoder(cfg).apply({"params": params}, ids, method="embed_tokens")
    np.testing.assert_array_equal(embeds, params["embed"]["embedding"][ids])
    a, b = call(ids=ids, mask=mask), call(embeds=embeds, mask=mask)
    np.testing.assert_array_equal(a["logits"], b["logits"])


@pytest.mark.parametrize(
    "model", ["llama", pytest.param("qwen2", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_cached_is_read_as_if_it_stood_there(model, side):
    cfg, params, _, wants = model
    ids, mask = padded([text[:-1] for text in TEXTS[:2]], side)
    begun = run(cfg, params, room=9, logits="last")(ids=ids, mask=mask)
    cache = begun["cache"]
    assert int(cache.length) == 6
    assert cache.key.shape == (3, 2, 9, 2, 6)
    np.testing.assert_array_equal(cache.mask, np.pad(mask, ((0, 0), (0, 3))))
    last = np.stack([text[-1:] for text in TEXTS[:2]])
    after = run(cfg, params)(ids=last, cache=cache)
    assert int(after["cache"].length) == 7
    assert after["cache"].mask[:, 6].all()
    for i, (_, _, logits) in enumerate(wants[:2]):
        for got, want in ((begun, logits[-2]), (after, logits[-1])):
            np.testing.assert_allclose(got["logits"][i, 0], want, atol=2e-4)


@pytest.mark.slow
def test_a_cache_that_overflows_is_not_silent(model):
    cfg, params, _, _ = model
    ids = np.ones((2, 3), np.int32)
    begun = run(cfg, params, room=4)(ids=ids)
    step = run(cfg, params)
    last = step(ids=ids[:, :1], cache=begun["cache"])
    over = step(ids=ids[:, :1], cache=last["cache"])
    assert np.isfinite(over["logits"]).all()
    after = step(ids=ids[:, :1], cache=over["cache"])
    assert np.isnan(after["logits"]).all()


def test_tokens_see_what_they_are_let_see():
    params, (text, *_) = random_params(LLAMA), TEXTS
    begun = run(LLAMA, params, room=9, logits="none")(ids=text[None, :3])
    assert "logits" not in begun
    # Two ends of the same text beside each other, neither of which sees the other.
    both = np.concatenate([text[3:5], text[3:5][::-1]])[None]
    own = np.kron(np.eye(2, dtype=bool), np.tri(2, dtype=bool))[None]
    places = np.array([[3, 4, 3, 4]])
    got = run(LLAMA, params, visible=own, positions=places)(
        ids=both, cache=begun["cache"]
    )["logits"][0]
    for i, end in enumerate((text[3:5], text[3:5][::-1])):
        _, _, want = decode(params, LLAMA, np.concatenate([text[:3], end]))
        np.testing.assert_allclose(got[2 * i : 2 * i + 2], want[3:], atol=2e-4)


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_published_sizes(name):
    want, adapted = {
        "vicuna-7b": (6_738_415_616, 319_815_680),
        "vicuna-13b": (13_015_864_320, 500_695_040),
        "qwen2-0.5b": (494_032_768, 35_192_832),
        "qwen2-1.5b": (1_543_714_304, 73_859_072),
    }[name]
    ids = jnp.zeros((1, 4), jnp.int32)
    cfg = DECODERS[name]
    module = Decoder(cfg)
    base = jax.eval_shape(module.init, jax.random.key(0), ids)["params"]
    assert count(base) == want
    lora = LoraConfig(rank=64 if cfg.tied else 128)
    linears = find_linears(module, ids)
    assert linears == LINEARS if cfg.tied else (*LINEARS, "lm_head")
    init = lambda key, base: init_adapters(key, base, linears, lora)
    assert count(jax.eval_shape(init, jax.random.key(0), base)) == adapted
    if name == "qwen2-1.5b":
        module = Decoder(dataclasses.replace(cfg, tied=False))
        base = jax.eval_shape(module.init, jax.random.key(0), ids)
        assert count(base) == 1_777_088_000


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_every_part_exists_whatever_is_called_first():
    module = Decoder(LLAMA)
    for given in (
        {"ids": np.zeros((1, 2), int)},
        {"embeds": np.zeros((1, 2, 16), np.float32)},
    ):
        shapes = jax.eval_shape(
            lambda key, given=given: module.init(key, **given, logits="none"),
            jax.random.key(0),
        )
        assert sorted(shapes["params"]) == ["embed", "layers", "lm_head", "norm"]


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_a_program_is_as_long_at_any_depth(remat):
    def length(depth):
        cfg = dataclasses.replace(LLAMA, depth=depth, remat=remat)
        shapes = jax.eval_shape(
            Decoder(cfg).init, jax.random.key(0), np.zeros((1, 2), int)
        )

        def loss(variables):
            return Decoder(cfg).apply(variables, np.zeros((1, 2), int))["logits"].sum()

        return count_equations(jax.make_jaxpr(jax.grad(loss))(shapes).jaxpr)

    assert 100 < length(2) == length(40)


def count_equations(jaxpr):
    parts = jax.tree.leaves(
        [list(equation.params.values()) for equation in jaxpr.eqns],
        is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"),
    )
    parts = [getattr(part, "jaxpr", part) for part in parts]
    inner = [part for part in parts if hasattr(part, "eqns")]
    return len(jaxpr.eqns) + sum(map(count_equations, inner))


def adapted_loss(cfg, base, adapters, ids, **options):
    out = apply_adapted(Decoder(cfg), base, adapters, ids, alpha=4.0, **options)
    return jnp.mean(jax.nn.logsumexp(out["logits"], axis=-1) - out["logits"][..., 0])


@pytest.fixture(scope="module")
def adapters():
    """Parameters, and adapters of all layers whose B is not zero."""
    base = random_params(LLAMA)
    lora = LoraConfig(rank=2, alpha=4.0)
    start = init_adapters(jax.random.key(0), base, LINEARS, lora)
    rng = np.random.default_rng(1)
    return base, jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), start)


@pytest.mark.slow
def test_adapters_learn_the_same_under_every_policy(adapters):
    base, start = adapters
    ids = TEXTS[0][None]

    def gradient(remat, dropout):
        cfg = dataclasses.replace(LLAMA, remat=remat)
        noise = {"dropout": dropout, "rngs": {"dropout": jax.random.key(3)}}
        loss = lambda x: adapted_loss(cfg, base, x, ids, **noise)
        return jax.jit(jax.grad(loss))(start)

    for dropout in (0.0, 0.3):
        want = gradient("none", dropout)
        assert all(
            float(jnp.abs(g).max(axis=(1, 2)).min()) > 0 for g in jax.tree.leaves(want)
        )
        # The mask of a layer that is computed again is the first one's.
        for a, b in zip(
            *map(jax.tree.leaves, (gradient("full", dropout), want)), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_adapters_are_wider_numbers_than_what_they_stand_beside(adapters):
    base, start = adapters
    ids = TEXTS[0][None]
    half = jnp.bfloat16
    cfg = dataclasses.replace(LLAMA, dtype=half, param_dtype=half, remat="full")
    small = jax.tree.map(lambda x: x.astype(half), base)
    grads = jax.jit(jax.grad(lambda x: adapted_loss(cfg, small, x, ids)))(start)
    want = jax.jit(jax.grad(lambda x: adapted_loss(LLAMA, base, x, ids)))(start)
    for a, b in zip(*map(jax.tree.leaves, (grads, want)), strict=True):
        assert a.dtype == np.float32
        assert np.abs(a - b).max() < 0.1 * np.abs(b).max()
    out = Decoder(cfg).apply({"params": small}, ids)
    assert out["tokens"].dtype == half
    assert out["logits"].dtype == np.float32


def test_wrong_arguments_are_refused():
    base = random_params(LLAMA)
    call = lambda *args, **given: jax.eval_shape(
        lambda: Decoder(LLAMA).apply({"params": base}, *args, **given)
    )
    ids = np.zeros((1, 3), np.int32)
    shapes = call(ids, room=3)["cache"]
    cache = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    for given in ({}, {"ids": ids, "embeds": np.zeros((1, 3, 16), np.float32)}):
        with pytest.raises(ValueError, match="either ids or embeds"):
            call(**given)
    with pytest.raises(ValueError, match="3 tokens do not fit into 2 slots"):
        call(ids, room=2)
    with pytest.raises(ValueError, match="1 rows of 4 tokens do not fit into 1 of 3"):
        call(np.zeros((1, 4), np.int32), cache=cache)
    with pytest.raises(ValueError, match="has its room already"):
        call(ids, cache=cache, room=9)
    with pytest.raises(ValueError, match="num_kv_heads=3"):
        DecoderConfig(num_heads=4, num_kv_heads=3)
