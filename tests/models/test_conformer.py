import dataclasses
import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.models import Conformer, ConformerConfig, Projection, skip_init
from eegkd.models.attention import position_scores, relative_shift
from eegkd.models.conformer import ConformerBlock
from eegkd.models.layers import gelu
from tests.oracles import conformer as oracle

SMALL = ConformerConfig(
    n_chans=7, dim=12, depth=2, ffn_mult=2, kernel=5, num_heads=2, num_prompts=3
)


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes_of(cfg: ConformerConfig):
    signal = jnp.zeros((1, cfg.n_chans, 800))
    return jax.eval_shape(Conformer(cfg).init, jax.random.key(0), signal)["params"]


def random_like(tree, seed=0, spread=0.3):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: np.asarray(spread * rng.normal(size=leaf.shape), np.float32), tree
    )


def built(cfg=SMALL, seed=0):
    """A signal and random variables; nothing is compiled to make them."""
    x = np.random.default_rng(seed).normal(size=(2, cfg.n_chans, 64)).astype("float32")
    shapes = jax.eval_shape(Conformer(cfg).init, jax.random.key(1), x)
    variables = random_like(shapes, seed)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    return x, variables


@functools.cache
def applied(cfg=SMALL, train=False):
    """Compiles `(variables, x, key) -> (tensors, state)` once a configuration."""

    def run(variables, x, key):
        rngs = {"dropout": key}
        model = Conformer(cfg)
        return model.apply(
            variables, x, train=train, rngs=rngs, mutable=["batch_stats"]
        )

    return jax.jit(run)


def tensors_of(variables, x, cfg=SMALL, train=False, key=0):
    return applied(cfg, train)(variables, x, jax.random.key(key))[0]


@pytest.mark.parametrize(
    ("sizes", "block"),
    [
        ({"dim": 400, "ffn_mult": 3}, 3_224_400),
        ({"dim": 448, "ffn_mult": 2}, 3_237_696),
        ({"dim": 372, "ffn_mult": 4, "num_heads": 4, "rel_pos": False}, 3_205_524),
        ({"dim": 364, "ffn_mult": 4, "num_heads": 4}, 3_202_836),
        ({"dim": 368, "ffn_mult": 4, "rel_pos": False}, 3_137_200),
        ({"dim": 512, "ffn_mult": 1}, 3_174_912),
        ({"dim": 256, "ffn_mult": 4}, 1_588_992),
        ({"dim": 384, "ffn_mult": 4, "rel_pos": False}, 3_414_912),
        ({"dim": 512, "ffn_mult": 4}, 6_323_712),
    ],
)
def test_block_counts(sizes, block):
    shapes = shapes_of(ConformerConfig(depth=1, num_prompts=0, **sizes))
    assert count(shapes["block_0"]) == block


@pytest.mark.parametrize(
    ("sizes", "teacher", "student"),
    [
        ({}, 30_781_200, 17_870_800),
        ({"dim": 512, "ffn_mult": 1}, 33_444_352, 20_728_320),
    ],
)
def test_branch_counts(sizes, teacher, student):
    totals = []
    for depth in (8, 4):
        cfg = ConformerConfig(depth=depth, **sizes)
        pooled = jnp.zeros((1, cfg.dim))
        head = jax.eval_shape(Projection(512).init, jax.random.key(0), pooled)
        totals.append(count(shapes_of(cfg)) + count(head))
    assert totals == [teacher, student]
    assert 0.55 < student / teacher < 0.63


def test_stem_counts_and_a_further_channel_adds_6000():
    assert count(shapes_of(ConformerConfig())["stem"]) == 4_754_800
    assert count(shapes_of(ConformerConfig(n_chans=20))["stem"]) == 4_760_800


def test_block_equals_the_plain_form():
    cfg = SMALL
    x = np.random.default_rng(0).normal(size=(3, 9, cfg.dim)).astype(np.float32)
    block = ConformerBlock(cfg)
    shapes = jax.eval_shape(
        lambda: block.init(jax.random.key(0), jnp.asarray(x), train=False)
    )
    variables = random_like(shapes)
    got, _ = jax.jit(lambda v, x: block.apply(v, x, train=False))(variables, x)
    params = jax.tree.map(np.float64, variables["params"])
    want = [oracle.block(one, params, num_heads=cfg.num_heads) for one in x]
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("queries", "keys"), [(6, 6), (6, 9), (8, 9)])
def test_both_forms_of_position_scores_agree(queries, keys):
    n, e = 6, 8
    rng = np.random.default_rng(0)
    r = rng.normal(size=(2, 2 * n - 1, e)).astype(np.float32)
    many = rng.normal(size=(5, 2, queries, e)).astype(np.float32)
    table = position_scores(many, r, n, keys)  # 2 b >= e: the table of offsets
    skewed = [position_scores(one[None], r, n, keys)[0] for one in many]
    np.testing.assert_allclose(table, skewed, rtol=1e-5, atol=1e-5)
    want = np.zeros((5, 2, queries, keys))
    for i in range(n):
        for j in range(n):
            row = r[:, n - 1 - (i - j)]
            want[:, :, i, j] = np.einsum("bhe,he->bh", many[:, :, i], row)
    np.testing.assert_allclose(table, want, rtol=1e-5, atol=1e-5)


def test_relative_shift_reads_column_n_minus_1_minus_i_plus_j():
    scores = np.arange(30, dtype=np.float32).reshape(1, 2, 3, 5)
    out = relative_shift(jnp.asarray(scores))
    for i in range(3):
        for j in range(3):
            np.testing.assert_array_equal(out[0, :, i, j], scores[0, :, i, 2 - i + j])


def test_tensors_have_the_named_shapes_and_pooled_is_their_mean():
    x, variables = built()
    out = tensors_of(variables, x)
    assert set(out) == {"embed", "block_0", "block_1", "tokens", "pooled"}
    chex.assert_shape([out["embed"], out["block_0"], out["tokens"]], (2, 8, 12))
    np.testing.assert_array_equal(out["tokens"], out["block_1"])
    np.testing.assert_allclose(out["pooled"], out["tokens"].mean(axis=1), rtol=1e-6)


def test_prompts_matter_through_attention_only():
    x, variables = built()
    params = variables["params"]

    def tokens(params):
        return tensors_of({"params": params}, x)["tokens"]

    def with_prompts(params, scale):
        block = {**params["block_1"]}
        block["prompts"] = random_like(block["prompts"], seed=7, spread=scale)
        return {**params, "block_1": block}

    assert np.abs(tokens(with_prompts(params, 3.0)) - tokens(params)).max() > 1e-3
    masked = {**params}
    for name in ("block_0", "block_1"):
        attention = {**params[name]["attention"]}
        attention["out"] = jax.tree.map(jnp.zeros_like, attention["out"])
        masked[name] = {**params[name], "attention": attention}
    np.testing.assert_array_equal(tokens(with_prompts(masked, 3.0)), tokens(masked))
    leaky = dataclasses.replace(SMALL, prompt_in_conv=True)
    a, b = (
        tensors_of({"params": p}, x, leaky)["tokens"]
        for p in (masked, with_prompts(masked, 3.0))
    )
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.slow
def test_every_parameter_has_a_gradient():
    x, variables = built()
    variables = jax.jit(Conformer(SMALL).init)(jax.random.key(0), x)

    def loss(params):
        out = Conformer(SMALL).apply(
            {"params": params}, x, train=True, rngs={"dropout": jax.random.key(0)}
        )
        return jnp.sum(out["pooled"] ** 3)

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    "switch",
    [
        {"pool": "cls", "prompt_in_conv": True, "rel_pos": False},
        {"conv_norm": "layer"},
        {"stem": "conv2d"},
        pytest.param({"pool": "cls"}, marks=pytest.mark.slow),
        pytest.param({"pool": "cls", "num_prompts": 0}, marks=pytest.mark.slow),
        pytest.param({"num_prompts": 0}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_switches_train(switch):
    cfg = dataclasses.replace(SMALL, depth=1, **switch)
    x, variables = built(cfg)
    out = tensors_of(variables, x, cfg, train=True)
    chex.assert_tree_all_finite(out)
    chex.assert_shape(out["pooled"], (2, 12))
    assert out["tokens"].shape[1] == (15 if cfg.stem == "conv2d" else 8)


def test_batch_norm_keeps_running_statistics():
    cfg = dataclasses.replace(SMALL, depth=1, conv_norm="batch", dropout=0.0)
    x, variables = built(cfg)
    old = variables["batch_stats"]
    _, new = applied(cfg, True)(variables, x, jax.random.key(0))
    chex.assert_trees_all_equal_shapes(old, new["batch_stats"])
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), old, new["batch_stats"])
    assert all(float(leaf) > 0 for leaf in jax.tree.leaves(moved))


def test_dropout_acts_in_training_only_and_follows_its_key():
    x, variables = built()

    def run(train, key):
        return tensors_of(variables, x, train=train, key=key)["pooled"]

    np.testing.assert_array_equal(run(False, 0), run(False, 1))
    np.testing.assert_array_equal(run(True, 0), run(True, 0))
    assert np.abs(run(True, 0) - run(True, 1)).max() > 1e-3


def test_bfloat16_activations_keep_float32_parameters():
    cfg = dataclasses.replace(SMALL, dtype="bfloat16")
    x, variables = built(cfg)
    shapes = jax.eval_shape(Conformer(cfg).init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    out = tensors_of(variables, x, cfg)
    assert out["tokens"].dtype == jnp.bfloat16
    assert out["pooled"].dtype == jnp.float32
    want = tensors_of(variables, x)
    np.testing.assert_allclose(out["pooled"], want["pooled"], atol=0.1)


def test_skip_init_copies_every_second_block():
    deep, shallow = (dataclasses.replace(SMALL, depth=depth) for depth in (4, 2))
    teacher, student = (built(cfg)[1]["params"] for cfg in (deep, shallow))
    started = skip_init(teacher, student)
    chex.assert_trees_all_equal(started["block_0"], teacher["block_1"])
    chex.assert_trees_all_equal(started["block_1"], teacher["block_3"])
    chex.assert_trees_all_equal(started["stem"], teacher["stem"])
    assert set(started) == set(student)


def test_skip_init_takes_the_channels_that_the_student_sees():
    few = dataclasses.replace(SMALL, depth=1, n_chans=2)
    teacher, student = random_like(shapes_of(SMALL)), shapes_of(few)
    kernel = skip_init(teacher, student, (5, 0))["stem"]["conv_0"]["conv"]["kernel"]
    whole = teacher["stem"]["conv_0"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel[:, 0], whole[:, 5])
    np.testing.assert_array_equal(kernel[:, 1], whole[:, 0])
    with pytest.raises(ValueError, match="depth alone"):
        skip_init(teacher, student)


def test_skip_init_refuses_depths_and_widths_that_do_not_fit():
    params = shapes_of(SMALL)
    three = shapes_of(dataclasses.replace(SMALL, depth=3))
    with pytest.raises(ValueError, match="3 is no multiple of student's 2"):
        skip_init(three, params)
    wider = shapes_of(dataclasses.replace(SMALL, depth=1, dim=16))
    with pytest.raises(ValueError, match="depth alone"):
        skip_init(params, wider)


def test_projection_gives_unit_vectors_and_a_finite_gradient_at_zero():
    module = Projection(6)
    x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    norms = np.linalg.norm(jax.jit(module.apply)(variables, x), axis=-1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: module.apply(variables, x).sum()))
    at_zero = gradient(np.zeros((1, 8)))
    assert np.isfinite(at_zero).all()


def test_gelu_is_exact():
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)


def test_config_is_json_and_refuses_what_cannot_work():
    fields = json.loads(json.dumps(dataclasses.asdict(SMALL)))
    assert (
        ConformerConfig(**fields | {"stem_kernels": (15, 29), "stem_strides": (4, 2)})
        == SMALL
    )
    with pytest.raises(ValueError, match="dim=10"):
        ConformerConfig(dim=10, num_heads=4)
    with pytest.raises(ValueError, match="odd; got 30"):
        ConformerConfig(kernel=30)
    with pytest.raises(ValueError, match="got 6"):
        ConformerConfig(n_chans=6, stem="conv2d")


def test_wrong_channels_are_refused():
    _, variables = built()
    with pytest.raises(ValueError, match=r"Need \[b, 7, t\]"):
        Conformer(SMALL).apply(variables, jnp.zeros((2, 8, 64)))


@pytest.mark.slow
def test_a_training_step_lowers_for_every_platform():
    cfg = dataclasses.replace(SMALL, depth=1)
    x, variables = built(cfg)

    def step(params, x, key):
        def loss(params):
            rngs = {"dropout": jax.random.wrap_key_data(key)}
            out = Conformer(cfg).apply({"params": params}, x, train=True, rngs=rngs)
            return out["pooled"].sum()

        return jax.grad(loss)(params)

    key = jax.random.key_data(jax.random.key(0))
    export = jax.export.export(jax.jit(step), platforms=["tpu", "cuda"])
    module = export(variables["params"], x, key).mlir_module()
    assert "stablehlo.convolution" in module
