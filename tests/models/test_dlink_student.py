"""DLink's student: its counts, every tensor against NumPy, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.models import CBraMod, CBraModConfig, DlinkStudent, DlinkStudentConfig
from eegkd.ops import count_flops
from tests.oracles import foundation as oracle

CHANNELS = ("Fz", "C3", "P8")
SMALL = DlinkStudentConfig(
    channels=CHANNELS,
    num_patches=3,
    filters=2,
    groups=2,
    mimic_blocks=1,
    mimic_hidden=5,
    compress_width=4,
    norm_groups=2,
    temporal_stride=2,
    num_classes=3,
    dropout=0.5,
)
X = 100 * np.random.default_rng(0).normal(size=(2, 3, 600)).astype(np.float32)


def signal_of(cfg):
    c, n = cfg.grid
    return jax.ShapeDtypeStruct((1, c, 200 * n), jnp.float32)


def shapes_of(module):
    return jax.eval_shape(module.init, jax.random.key(0), signal_of(module.cfg))


def variables_of(module, seed=0):
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        spread = 0.3 * rng.normal(size=leaf.shape)
        return np.float32(abs(spread) if "var" in str(path[-1]) else spread)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(module))


GRIDS = [
    (32, 10, 9, 91_123),  # FACED
    (64, 4, 4, 92_846),  # PhysioNet-MI
    (32, 4, 1, 90_603),  # SHU-MI
    (16, 10, 1, 89_579),  # CHB-MIT
    (19, 5, 1, 89_771),  # Mumtaz2016
    (22, 4, 4, 90_158),  # BCIC-IV-2a
]


def grid_of(c, n):
    return {"channels": tuple(f"E{i}" for i in range(c)), "num_patches": n}


@pytest.mark.parametrize(("c", "n", "k", "want"), GRIDS)
def test_published_counts(c, n, k, want):
    shapes = shapes_of(DlinkStudent(DlinkStudentConfig(**grid_of(c, n), num_classes=k)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == want < 100_000


# Tracing takes seconds: one in every run.
@pytest.mark.parametrize(
    ("c", "n", "k"),
    [
        pytest.param(c, n, k, marks=[] if c == 19 else pytest.mark.slow)
        for c, n, k, _ in GRIDS
    ],
)
def test_operations_are_a_tenth_of_the_teachers(c, n, k):
    student = DlinkStudent(DlinkStudentConfig(**grid_of(c, n), num_classes=k))
    own, teacher = (
        count_flops(module.apply, shapes_of(module), signal_of(module.cfg))
        for module in (student, CBraMod(CBraModConfig(**grid_of(c, n))))
    )
    assert 10 * own < teacher


@pytest.mark.parametrize("spectrum", [True, False])
def test_all_tensors_equal_numpy(spectrum):
    student = DlinkStudent(dataclasses.replace(SMALL, spectrum=spectrum))
    variables = variables_of(student)
    got = jax.jit(student.apply)(variables, X)
    p = variables["params"]
    assert student.grid == (3, 3)
    assert ("spectral" in p["embed"]) == spectrum
    for i, x in enumerate(X):
        want = expected(x, p)
        assert want.keys() == got.keys()
        for name, value in want.items():
            have = np.reshape(got[name][i], value.shape)
            scale = np.abs(value).max()
            np.testing.assert_allclose(have, value, rtol=1e-4, atol=1e-4 * scale)


def expected(x, p):
    elu = lambda y: np.where(y > 0, y, np.expm1(np.minimum(y, 0)))
    e, patches = p["embed"], np.float64(x).reshape(9, 200) / 100
    y = oracle.stem(patches, e, ((25, 24), (1, 1), (1, 1)), 2)
    y = y.swapaxes(1, 2).reshape(3, 3, 16)
    if "spectral" in e:
        spectrum = np.abs(np.fft.rfft(patches, norm="forward"))
        y = y + oracle.dense(spectrum, e["spectral"]).reshape(3, 3, 16)
    position = e["position"]
    y = y + oracle.grid_conv(y, position["kernel"]) + position["bias"]
    out = {"embed": y}
    b = p["block_0"]
    z = oracle.grid_conv(y, b["conv"]["kernel"]) + b["conv"]["bias"]
    z = oracle.layer_norm(z, b["norm"], 1e-5)
    z = oracle.dense(oracle.gelu(oracle.dense(z, b["down"])), b["up"])
    out["block_0"] = out["tokens"] = y = y + z
    y = oracle.dense(y, p["narrow"])
    out["narrow"] = y = elu(oracle.group_norm(y, p["narrow_norm"], 2))
    y = np.einsum("cnw,cwm->nwm", y, p["spatial"]).reshape(3, 8) + p["spatial_bias"]
    out["spatial"] = y = elu(oracle.group_norm(y, p["spatial_norm"], 2))
    padded = np.pad(y, ((1, 1), (0, 0)))
    y = sum(padded[i : i + 3] * p["temporal"][i] for i in range(3))
    out["temporal"] = y = y[::2]
    out["compressed"] = y = elu(oracle.dense(y, p["mix"]))
    out["pooled"] = y.mean(0)
    return out | {"logits": oracle.dense(y.mean(0), p["head"])}


def test_batch_norm_follows_the_batch_and_dropout_acts_in_training_alone():
    cfg = dataclasses.replace(SMALL, norm="batch", order="compress_only")
    student = DlinkStudent(cfg)
    variables = variables_of(student)
    assert "block_0" not in variables["params"]

    @jax.jit
    def both(variables):
        out, state = student.apply(
            variables,
            X,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return student.apply(variables, X), out, state

    still, drawn, state = both(variables)
    assert "block_0" not in still
    np.testing.assert_array_equal(still["tokens"], still["embed"])
    old, new = variables["batch_stats"], state["batch_stats"]
    # Of the features that BatchNorm saw in training: the running mean moves to theirs.
    p = variables["params"]["narrow"]
    mean = oracle.dense(np.float64(drawn["tokens"]), p).mean((0, 1))
    want = 0.9 * old["narrow_norm"]["mean"] + 0.1 * mean
    np.testing.assert_allclose(new["narrow_norm"]["mean"], want, rtol=1e-4, atol=1e-5)
    head = variables["params"]["head"]
    without = oracle.dense(np.float64(drawn["pooled"]), head)
    assert np.abs(drawn["logits"] - without).max() > 1e-3


def test_bfloat16_keeps_the_last_layer_in_float32():
    student = DlinkStudent(dataclasses.replace(SMALL, dtype="bfloat16"))
    out = jax.eval_shape(student.apply, shapes_of(student), signal_of(SMALL))
    assert out["tokens"].dtype == out["compressed"].dtype == jnp.bfloat16
    assert out["pooled"].dtype == out["logits"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 3}, "groups must divide"),
        ({"norm_groups": 3}, "groups must divide"),
        ({"temporal_stride": 0}, "out of range"),
        ({"mimic_blocks": -1}, "out of range"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)
    with pytest.raises(ValueError, match="Need \\[b, 3, 600\\]"):
        jax.eval_shape(DlinkStudent(SMALL).init, jax.random.key(0), X[:, :, :400])
