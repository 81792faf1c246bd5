import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.data.images.anyres import AnyresConfig, row_index
from eegkd.data.language.packing import TextPart, VisualPart, pack_rows
from eegkd.errors import InputError
from eegkd.models import (
    ClipVisionConfig,
    DecoderConfig,
    Decoding,
    Llava,
    LlavaConfig,
    LoraConfig,
    arrange_patches,
    generate_text,
    init_adapters,
    insert_visual,
    merge_adapters,
    score_text,
)
from eegkd.models.checks import check_visual
from eegkd.models.llava import PRESETS

GRIDS = ((4, 8), (8, 4), (8, 8))
ANYRES = AnyresConfig(tile=4, patch=2, grids=GRIDS)
TINY = LlavaConfig(
    vision=ClipVisionConfig(
        dim=8, depth=3, num_heads=2, ffn_dim=12, image_size=4, patch_size=2
    ),
    language=DecoderConfig(
        vocab_size=20,
        dim=12,
        depth=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        ffn_dim=16,
        layers_out=(0,),
    ),
    grids=GRIDS,
)
TWO = Decoding(max_new_tokens=2)
RNG = np.random.default_rng(0)
# A wide, a tall and a square image: other grids, one compiled program.
SIZES = [(3, 9), (9, 3), (7, 8)]
COUNTS = [4 + 2 * 5, 4 + 4 * 3, 4 + 4 * 5]


def batch_of(sizes, side="right"):
    num = 5
    indices = [row_index([size], ANYRES) for size in sizes]
    rows = [
        [TextPart([3]), VisualPart(int(mask.sum())), TextPart(range(5 + i), True)]
        for i, (_, mask) in enumerate(indices)
    ]
    packed = pack_rows(rows, length=32, side=side)
    packed.pop("labels")
    return packed | {
        "pixels": RNG.normal(size=(len(sizes), num, 4, 4, 3)).astype(np.float32),
        "visual_index": np.stack([index for index, _ in indices]),
        "visual_mask": np.stack([mask for _, mask in indices]),
    }


@pytest.fixture(scope="module")
def params():
    ids = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(Llava(TINY).init, jax.random.key(0), ids)
    return jax.tree.map(
        lambda leaf: (0.4 * RNG.normal(size=leaf.shape)).astype(np.float32), shapes
    )["params"]


@jax.jit
def read(params, batch):
    return Llava(TINY).apply({"params": params}, **batch)


@pytest.mark.parametrize(
    ("name", "projector", "total"),
    [
        ("llava-1.5-7b", 20_979_712, 7_062_902_784),
        ("llava-1.5-13b", 31_467_520, 13_350_839_296),
        ("llava-1.6-7b", 20_979_712, 7_062_906_880),
    ],
)
def test_counts(name, projector, total):
    cfg = PRESETS[name]
    ids = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(Llava(cfg).init, jax.random.key(0), ids)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == total
    assert sum(x.size for x in jax.tree.leaves(shapes["projector"])) == projector
    assert sum(x.size for x in jax.tree.leaves(shapes["vision"])) == 303_507_456
    assert ("newline" in shapes) == (name == "llava-1.6-7b")
    assert cfg.block == "block_22"


def test_a_page_of_an_electrocardiogram_at_full_size():
    cfg = PRESETS["llava-1.6-7b"]
    anyres = AnyresConfig(grids=cfg.grids)
    assert (anyres.tile, anyres.patch) == (
        cfg.vision.image_size,
        cfg.vision.patch_size,
    )
    index, mask = row_index([(1700, 2200)], anyres)
    packed = pack_rows([[TextPart(range(9)), VisualPart(2438), TextPart([3], True)]])
    assert mask.sum() == 2438
    assert packed["mask"].shape == (1, 2448)
    batch = {name: packed[name] for name in ("ids", "mask", "visual_at")}
    batch |= {"visual_index": index[None], "visual_mask": mask[None]}
    batch["pixels"] = jnp.zeros((1, anyres.max_tiles, 336, 336, 3))
    init = lambda **batch: Llava(cfg).init_with_output(jax.random.key(0), **batch)[0]
    out = jax.eval_shape(init, **batch)
    assert out["visual"].shape == (1, 2928, 4096)
    assert out["vision_block_22"].shape == (1, 5, 577, 1024)
    assert out["logits"].shape == (1, 2448, 32000)


def test_arranging_is_a_plain_loop():
    patches = RNG.normal(size=(2, 3, 2, 4)).astype(np.float32)
    newline = RNG.normal(size=4).astype(np.float32)
    index = np.array([[5, 0, -1, 3, 0], [-1, 1, 2, -1, 4]])
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], bool)
    got = arrange_patches(patches, index, mask, newline)
    for i, j in np.ndindex(2, 5):
        number = index[i, j]
        want = newline if number < 0 else patches[i, number // 2, number % 2]
        np.testing.assert_array_equal(got[i, j], want if mask[i, j] else np.zeros(4))
    # Past the last patch: as of embeddings, nothing that looks like a token.
    assert np.isnan(arrange_patches(patches, index + 1, mask, newline)[0, 0]).all()


def test_inserting_is_a_plain_loop():
    text = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    visual = RNG.normal(size=(2, 2, 3)).astype(np.float32)
    at = np.array([[-1, 1, 0, -1], [0, -1, -1, -1]])
    there = np.array([[True, True], [True, False]])
    got = insert_visual(text, visual, at, there)
    for i, j in np.ndindex(2, 4):
        want = text[i, j] if at[i, j] < 0 else visual[i, at[i, j]]
        np.testing.assert_array_equal(got[i, j], want)


# Places for the visual tokens 0, 1 and 2 of row 1, whose images have two.
@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([0], "row 1 has places for 1 visual tokens, and its images have 2"),
        ([], "row 1 has places for 0 visual tokens, and its images have 2"),
        ([0, 1, 2], "row 1 has places for 3 visual tokens, and its images have 2"),
        ([0, 2], "row 1 has as many places.*see token 1"),
        ([0, 9], "row 1 has as many places.*see token 1"),
    ],
    ids=["few", "none", "many", "another", "past the last"],
)
def test_each_visual_token_needs_its_place(places, message):
    text = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    visual = RNG.normal(size=(2, 3, 3)).astype(np.float32)
    there = np.array([[True, False, False], [True, True, False]])
    at = np.full((2, 5), -1)
    at[0, 1] = 0
    at[1, 1 : 1 + len(places)] = places
    got = jax.jit(insert_visual)(text, visual, at, there)
    assert np.isnan(got[1]).all()
    np.testing.assert_array_equal(got[0], [*text[0, :1], visual[0, 0], *text[0, 2:]])
    with pytest.raises(InputError, match=rf"{message}.*split_at_images"):
        check_visual(at, there)


def test_images_of_all_grids_share_one_program(params):
    batch = batch_of(SIZES)
    out = read(params, batch)
    np.testing.assert_array_equal(out["visual_mask"].sum(axis=1), COUNTS)
    assert out["visual"].shape == (3, ANYRES.max_tokens, 12)
    assert out["logits"].shape == (3, 32, 20)
    assert out["vision_block_1"].shape == (3, 5, 5, 8)
    assert not out["visual"][~batch["visual_mask"]].any()
    for row, number in enumerate(COUNTS):
        stretch = out["embed"][row, 1 : 1 + number]
        np.testing.assert_array_equal(stretch, out["visual"][row, :number])
    before = read._cache_size()
    read(params, batch_of(SIZES[::-1]))
    assert read._cache_size() == before


def test_a_callers_own_visual_tokens_go_the_same_way(params):
    batch = batch_of(SIZES)
    want = read(params, batch)
    names = ("ids", "mask", "positions", "visual_at", "visual_mask")
    own = {key: batch[key] for key in names}
    got = read(params, own | {"visual": want["visual"]})
    for name in ("embed", "block_0", "tokens", "logits"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got["visual_mask"], batch["visual_mask"])
    assert "vision_block_1" not in got


def test_another_models_features_are_added_by_the_same_projector(params):
    # EEG-VLM: the tower's tokens, and again with one vector added to each.
    batch = batch_of(SIZES[:2])
    zf = RNG.normal(size=(2, 1, 8)).astype(np.float32)

    @jax.jit
    def fused(params, zf):
        llava = Llava(dataclasses.replace(TINY, grids=())).bind({"params": params})
        hv = llava.see(batch["pixels"][:, :1])["patches"][:, 0]
        hf = llava.project(zf)
        rows = [[TextPart([3]), VisualPart(4), TextPart([1]), VisualPart(4)]] * 2
        packed = pack_rows(rows)
        visual = jnp.concatenate([hv, hv + hf], axis=1)
        out = llava(packed["ids"], visual_at=packed["visual_at"], visual=visual)
        return hf, out["embed"]

    hf, embed = fused(params, zf)
    difference = embed[:, 6:] - embed[:, 1:5]
    np.testing.assert_allclose(difference, np.repeat(hf, 4, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(embed[:, 1:5], fused(params, zf + 1)[1][:, 1:5])


def test_the_side_of_padding_changes_nothing(params):
    right, last = batch_of(SIZES), []
    left = batch_of(SIZES, "left") | {"pixels": right["pixels"]}
    for batch in (right, left):
        index = 31 - batch["mask"][:, ::-1].argmax(axis=1)
        last.append(read(params, batch)["logits"][np.arange(3), index])
    np.testing.assert_allclose(*last, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_gradients_reach_every_part(params):
    @jax.jit
    @jax.grad
    def grad(params, batch):
        out = Llava(TINY).apply({"params": params}, **batch)
        return (out["tokens"] * batch["mask"][..., None] * jnp.arange(12)).sum()

    gradient = grad(params, batch_of(SIZES))
    parts = (
        gradient["newline"],
        gradient["projector"]["linear_1"]["kernel"],
        gradient["vision"]["patch"]["kernel"],
        gradient["vision"]["layers"]["query"]["kernel"][:2],
        gradient["language"]["embed"]["embedding"],
    )
    for part in parts:
        assert np.abs(part).max() > 0


@pytest.mark.slow
def test_a_prompt_is_continued(params):
    batch = batch_of(SIZES, "left")
    names = ("pixels", "visual_index", "visual_mask", "visual_at")
    inputs = {name: batch.pop(name) for name in names}
    llava = Llava(TINY)
    out = generate_text(
        llava, params, batch["ids"], batch["mask"], inputs=inputs, decoding=TWO
    )
    logits = read(params, batch | inputs)["logits"][:, -1]
    np.testing.assert_array_equal(out.tokens[:, 0], logits.argmax(axis=-1))
    choices = np.array([[3], [5]])
    got = score_text(
        llava,
        params,
        batch["ids"],
        batch["mask"],
        inputs=inputs,
        continuations=choices,
    )
    want = jax.nn.log_softmax(logits)[:, choices[:, 0]]
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.slow
def test_adapters_of_all_parts_generate_and_score_as_merged_weights_do(params):
    batch = batch_of(SIZES, "left")
    names = ("pixels", "visual_index", "visual_mask", "visual_at")
    inputs = {name: batch.pop(name) for name in names}
    linears = ("projector/linear_1", "language/layers/query", "language/lm_head")
    config = LoraConfig(rank=2, alpha=6.0, targets=linears)
    adapters = init_adapters(jax.random.key(0), params, linears, config)
    adapters = jax.tree.map(lambda x: x + 0.2, adapters)
    merged = merge_adapters(params, adapters, alpha=6.0)
    given = (batch["ids"], batch["mask"])
    beside = {"inputs": inputs, "adapters": adapters, "alpha": 6.0}
    ends = {"continuations": np.array([[3, 4], [5, 1]])}
    llava = Llava(TINY)
    np.testing.assert_allclose(
        score_text(llava, params, *given, **beside, **ends),
        score_text(llava, merged, *given, inputs=inputs, **ends),
        rtol=1e-4,
    )
    # The control: without the projector's they are others.
    part = beside | {"adapters": {"language": adapters["language"]}}
    other = score_text(llava, params, *given, **part, **ends)
    whole = generate_text(llava, params, *given, **beside, decoding=TWO)
    want = generate_text(llava, merged, *given, inputs=inputs, decoding=TWO)
    np.testing.assert_allclose(whole.logprobs, want.logprobs, rtol=1e-4)
    assert (
        np.abs(other - score_text(llava, params, *given, **beside, **ends)).max() > 1e-3
    )


def test_images_without_a_place_are_refused_before_anything_runs(params):
    batch = batch_of(SIZES, "left")
    names = ("pixels", "visual_index", "visual_mask", "visual_at")
    given = (Llava(TINY), params, batch["ids"], batch["mask"])
    inputs = {name: batch[name] for name in names}
    lost = inputs | {
        "visual_at": np.where(batch["visual_at"] == 2, -1, batch["visual_at"])
    }
    ends = {"continuations": np.array([[3]])}
    for wrong, message in (
        (lost, "row 0 has places for 13 visual tokens, and its images have 14"),
        (inputs | {"visual_mask": None}, "row 0 has places for 14 .* images have 24"),
    ):
        with pytest.raises(InputError, match=message):
            generate_text(*given, inputs=wrong, decoding=TWO)
        with pytest.raises(InputError, match=message):
            score_text(*given, inputs=wrong, **ends)
    ids = batch["ids"].copy()
    ids[1, -1] = 20
    with pytest.raises(
        InputError, match=r"ids: token 20 at \(1, 31\).*split_at_images"
    ):
        generate_text(*given[:2], ids, given[3], inputs=inputs, decoding=TWO)


def test_what_does_not_fit_is_refused(params):
    batch = batch_of(SIZES)

    def shapes(**changes):
        kept = {k: v for k, v in (batch | changes).items() if v is not None}
        jax.eval_shape(lambda p: Llava(TINY).apply({"params": p}, **kept), params)

    with pytest.raises(ValueError, match="either pixels or visual"):
        shapes(visual=np.zeros((3, 24, 12), np.float32))
    with pytest.raises(ValueError, match="visual_at are needed together"):
        shapes(visual_at=None)
    with pytest.raises(ValueError, match="needs visual_index"):
        shapes(visual_index=None)
    with pytest.raises(ValueError, match=r"3 layers; got \[-4\]"):
        dataclasses.replace(TINY, select_layer=-4)
