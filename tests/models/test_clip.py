import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.models import (
    Clip,
    ClipConfig,
    ClipText,
    ClipTextConfig,
    ClipVision,
    ClipVisionConfig,
)
from eegkd.models.clip import PRESETS

SIZES = {"dim": 8, "depth": 3, "num_heads": 2, "ffn_dim": 12, "layers_out": (0, -2)}
VISION = ClipVisionConfig(**SIZES, image_size=6, patch_size=2)
TEXT = ClipTextConfig(**SIZES, vocab_size=20, max_positions=7, eos_id=5)
TINY = ClipConfig(vision=VISION, text=TEXT, projection_dim=6)
RNG = np.random.default_rng(0)
PIXELS = RNG.normal(size=(2, 6, 6, 3)).astype(np.float32)
IDS = np.array([[9, 3, 5, 5, 0, 0], [1, 19, 2, 8, 4, 5], [3, 5, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(Clip(TINY).init, jax.random.key(0), PIXELS, IDS)
    return jax.tree.map(
        lambda leaf: (0.4 * RNG.normal(size=leaf.shape)).astype(np.float32), shapes
    )["params"]


@pytest.fixture(scope="module")
def tensors(params):
    return jax.jit(Clip(TINY).apply)({"params": params}, PIXELS, IDS)


def test_counts():
    want = {
        "clip-vit-large-patch14-336": 303_507_456,
        "clip-vit-large-patch14": 303_179_776,
    }
    assert set(want) == set(PRESETS)
    for name, number in want.items():
        cfg = PRESETS[name].vision
        image = jax.ShapeDtypeStruct((1, *[cfg.image_size] * 2, 3), jnp.float32)
        shapes = jax.eval_shape(ClipVision(cfg).init, jax.random.key(0), image)
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == number
        assert cfg.num_patches in (576, 256)


def norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * p["scale"] + p["bias"]


def plain_layers(p, x, seen, act):
    """Returns the output of each layer; `seen` [l, m] says who sees whom."""
    out = []
    for i in range(len(p["norm1"]["scale"])):
        at = jax.tree.map(lambda leaf, i=i: np.float64(leaf[i]), p)
        dense = lambda x, name, at=at: x @ at[name]["kernel"] + at[name]["bias"]
        y = norm(at["norm1"], x)
        q, k, v = (dense(y, name) for name in ("query", "key", "value"))
        heads = []
        for part in np.split(np.arange(x.shape[-1]), SIZES["num_heads"]):
            scores = q[:, part] @ k[:, part].T / np.sqrt(len(part))
            weights = np.exp(scores) * seen
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        x = x + dense(np.concatenate(heads, -1), "out")
        x = x + dense(act(dense(norm(at["norm2"], x), "up")), "down")
        out.append(x)
    return out


def quick(x):
    return x / (1 + np.exp(-1.702 * x))


def erf_gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_the_vision_tower_by_hand(params, tensors, activation):
    p = params["vision"]
    if activation == "quick_gelu":
        got = {name[7:]: tensors[name] for name in tensors if "vision_" in name}
    else:
        cfg = dataclasses.replace(VISION, activation="gelu")
        got = jax.jit(ClipVision(cfg).apply)({"params": p}, PIXELS)
    for image, pixels in enumerate(np.float64(PIXELS)):
        patches = [
            np.einsum("ijc,ijcd->d", pixels[y : y + 2, x : x + 2], p["patch"]["kernel"])
            for y in (0, 2, 4)
            for x in (0, 2, 4)
        ]
        x = np.stack([p["class_embedding"], *patches]) + p["position"]["embedding"]
        x = norm(p["pre_norm"], x)
        np.testing.assert_allclose(got["embed"][image], x, rtol=1e-4, atol=1e-5)
        act = quick if activation == "quick_gelu" else erf_gelu
        blocks = plain_layers(p["layers"], x, np.ones((10, 10)), act)
        for name, want in zip(("block_0", "block_1", "tokens"), blocks, strict=True):
            np.testing.assert_allclose(got[name][image], want, rtol=1e-4, atol=1e-4)
        pooled = norm(p["post_norm"], blocks[-1][0])
        np.testing.assert_allclose(got["pooled"][image], pooled, rtol=1e-4, atol=1e-4)
    assert set(got) == {"embed", "block_0", "block_1", "tokens", "pooled"}


def test_the_text_tower_by_hand(params, tensors):
    p = params["text"]
    ends = [2, 5, 1]
    for row, end in enumerate(ends):
        x = p["token"]["embedding"][IDS[row]] + p["position"]["embedding"][:6]
        blocks = plain_layers(p["layers"], np.float64(x), np.tri(6), quick)
        want = norm(p["final_norm"], blocks[-1])
        np.testing.assert_allclose(
            tensors["text_tokens"][row], want, rtol=1e-4, atol=1e-4
        )
        np.testing.assert_array_equal(
            tensors["text_pooled"][row], tensors["text_tokens"][row, end]
        )


def test_a_mask_hides_padding_and_old_files_pool_the_highest_id(params):
    cfg = dataclasses.replace(TEXT, eos_id=None)
    variables = {"params": params["text"]}
    mask = np.arange(6) < np.array([[3], [6], [2]])
    encode = jax.jit(ClipText(cfg).apply)
    masked, plain = encode(variables, IDS, mask), encode(variables, IDS)
    chex.assert_trees_all_close(masked["pooled"], plain["pooled"], rtol=1e-5)
    for row, highest in enumerate([0, 1, 1]):
        np.testing.assert_array_equal(
            masked["pooled"][row], masked["tokens"][row, highest]
        )


def test_logits_are_scaled_cosines(params, tensors):
    image = np.float64(tensors["vision_pooled"]) @ params["visual_projection"]["kernel"]
    text = np.float64(tensors["text_pooled"]) @ params["text_projection"]["kernel"]
    image, text = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (image, text))
    want = np.exp(params["logit_scale"]) * image @ text.T
    np.testing.assert_allclose(tensors["logits"], want, rtol=1e-4, atol=1e-5)
    chex.assert_shape(tensors["logits"], (2, 3))
    np.testing.assert_allclose(tensors["image"], image, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused(params):
    with pytest.raises(ValueError, match=r"Need images \[6, 6, 3\]"):
        ClipVision(VISION).apply({"params": params["vision"]}, PIXELS[:, :4, :4])
    with pytest.raises(ValueError, match="8 tokens, more than 7"):
        ClipText(TEXT).apply({"params": params["text"]}, np.zeros((1, 8), np.int32))
    with pytest.raises(ValueError, match="num_heads=3"):
        ClipVisionConfig(num_heads=3)
    with pytest.raises(ValueError, match="patch_size=5"):
        ClipVisionConfig(patch_size=5)
    with pytest.raises(ValueError, match=r"24 layers; got \[24\]"):
        ClipVisionConfig(layers_out=(24,))
    with pytest.raises(ValueError, match="'relu'"):
        ClipTextConfig(activation="relu")
