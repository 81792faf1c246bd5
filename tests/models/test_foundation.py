"""CBraMod and LaBraM against NumPy, and what both must refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.errors import InputError
from eegkd.models import (
    LABRAM_CHANNELS,
    CBraMod,
    CBraModConfig,
    Labram,
    LabramConfig,
    PatchEmbedding,
    check_windows,
)
from eegkd.models.cbramod import patch_spectrum
from tests.oracles import foundation as oracle

CHANNELS = ("Fz", "C3", "P8")
SMALL = {"channels": CHANNELS, "num_patches": 2, "depth": 2, "ffn_dim": 12}
CBRAMOD = CBraModConfig(**SMALL, filters=4, groups=2, num_heads=4, reconstruct=True)
LABRAM = LabramConfig(**SMALL, filters=4, num_heads=5, max_patches=3)
MODULES = {"cbramod": CBraMod(CBRAMOD), "labram": Labram(LABRAM)}
X = np.random.default_rng(0).normal(size=(2, 3, 400)).astype(np.float32) * 100


def shapes_of(module, t=None):
    c, n = module.grid
    signal = jax.ShapeDtypeStruct((1, c, t or 200 * n), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), signal)


def variables_of(module, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: np.float32(0.3 * rng.normal(size=leaf.shape)), shapes_of(module)
    )


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def outputs():
    """Of each model, compiled once: with its variables."""
    both = {}
    for name, module in MODULES.items():
        variables = variables_of(module)
        both[name] = variables, jax.jit(module.apply)(variables, X)
    return both


def test_published_counts():
    embedding = PatchEmbedding()
    patches = jax.ShapeDtypeStruct((1, 2, 3, 200), jnp.float32)
    init = lambda key, x: embedding.init(key, x, train=False)
    assert count(jax.eval_shape(init, jax.random.key(0), patches)) == 52_400
    assert count(shapes_of(CBraMod(CBraModConfig()))) == 4_883_800
    whole = CBraModConfig(reconstruct=True, channels=("Cz",), num_patches=1)
    assert count(shapes_of(CBraMod(whole))) == 4_924_000
    labram = shapes_of(Labram(LabramConfig()))["params"]
    assert count(labram) == 5_819_936
    assert count(labram["layers"]) == 12 * 482_480
    assert count(labram["embedding"]) == 576


def test_every_state_of_cbramod_equals_numpy(outputs):
    variables, got = outputs["cbramod"]
    for example in range(2):
        want = oracle.cbramod(
            0.01 * X[example],
            variables["params"],
            grid=(3, 2),
            groups=2,
            num_heads=4,
            depth=2,
        ).reshape(3, 6, 32)
        for name, state in zip(("embed", "block_0", "block_1"), want, strict=True):
            np.testing.assert_allclose(got[name][example], state, rtol=1e-4, atol=1e-4)
    last = want[-1]
    np.testing.assert_array_equal(got["tokens"], got["block_1"])
    np.testing.assert_allclose(got["pooled"][1], last.mean(0), rtol=1e-4, atol=1e-4)
    rebuilt = oracle.dense(last, variables["params"]["proj_out"])
    np.testing.assert_allclose(got["reconstruction"][1], rebuilt, rtol=1e-4, atol=1e-4)


def test_every_state_of_labram_equals_numpy(outputs):
    variables, got = outputs["labram"]
    rows = [LABRAM_CHANNELS.index(name.upper()) + 1 for name in CHANNELS]
    want = oracle.labram(
        0.01 * X[0], variables["params"], grid=(3, 2), rows=rows, num_heads=5, depth=2
    )
    for name, state in zip(("embed", "block_0", "block_1"), want, strict=True):
        np.testing.assert_allclose(got[name][0], state[1:], rtol=1e-4, atol=1e-4)
    norm = variables["params"]["norm"]
    both = oracle.layer_norm(want[-1], norm, 1e-6)
    mean = oracle.layer_norm(want[-1][1:].mean(0), norm, 1e-6)
    for name, value in {"cls": both[0], "tokens": both[1:], "pooled": mean}.items():
        np.testing.assert_allclose(got[name][0], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODULES)
def test_tensors_have_the_grid_s_shapes(name, outputs):
    module, (_, out) = MODULES[name], outputs[name]
    assert module.grid == (3, 2)
    for key in ("embed", "block_0", "block_1", "tokens"):
        assert out[key].shape == (2, 6, module.cfg.dim)
    assert out["pooled"].shape == (2, module.cfg.dim)


def test_spectrum_equals_the_fft_and_is_smooth_in_silence():
    x = np.random.default_rng(1).normal(size=(3, 200)).astype(np.float32)
    want = np.abs(np.fft.rfft(x, norm="forward"))
    np.testing.assert_allclose(patch_spectrum(x), want, rtol=1e-5, atol=1e-7)
    gradient = jax.grad(lambda x: patch_spectrum(x).sum())(jnp.zeros((1, 200)))
    np.testing.assert_array_equal(gradient, 0)


def test_a_hidden_patch_tells_nothing(outputs):
    variables, _ = outputs["cbramod"]
    masked = np.zeros((2, 3, 2), bool)
    masked[:, 1, 1] = True
    other = X.copy()
    other[:, 1, 200:] += 50
    run = jax.jit(CBraMod(CBRAMOD).apply)
    hidden, same = (run(variables, x, masked)["tokens"] for x in (X, other))
    np.testing.assert_array_equal(hidden, same)
    assert np.abs(hidden - run(variables, other)["tokens"]).max() > 1e-3


def test_labram_knows_channels_by_name(outputs):
    variables, out = outputs["labram"]
    turned = dataclasses.replace(LABRAM, channels=("p8", "FZ", "c3"))
    again = jax.jit(Labram(turned).apply)(variables, X[:, [2, 0, 1]])
    np.testing.assert_allclose(again["pooled"], out["pooled"], rtol=1e-4, atol=1e-5)
    first = out["tokens"].reshape(2, 3, 2, -1)[:, [2, 0, 1]]
    np.testing.assert_allclose(
        again["tokens"], first.reshape(2, 6, -1), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", MODULES)
def test_training_draws_and_bfloat16_stays_close(name, outputs):
    variables, exact = outputs[name]
    module = MODULES[name]
    half = type(module)(dataclasses.replace(module.cfg, dtype="bfloat16"))

    @jax.jit
    def run(key):
        rngs = {"dropout": key}
        trained = module.apply(variables, X, train=True, rngs=rngs)
        return trained["pooled"], half.apply(variables, X)["block_1"]

    (a, low), (b, _) = run(jax.random.key(0)), run(jax.random.key(1))
    assert np.abs(a - b).max() > 1e-3
    assert low.dtype == jnp.bfloat16
    error = np.linalg.norm(low.astype(jnp.float32) - exact["block_1"])
    assert error < 0.05 * np.linalg.norm(exact["block_1"])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_every_platform_takes_any_batch(name):
    module, shapes = MODULES[name], shapes_of(MODULES[name])
    (b,) = jax.export.symbolic_shape("b")
    signal = jax.ShapeDtypeStruct((b, 3, 400), jnp.float32)
    platforms = ("cpu", "cuda", "tpu")
    lowered = jax.export.export(jax.jit(module.apply), platforms=platforms)
    assert lowered(shapes, signal).platforms == platforms


def test_initial_values_follow_the_published_recipes():
    @jax.jit
    def layers_of(key):
        drawn = [m.init(key, X)["params"]["layers"] for m in MODULES.values()]
        (cbramod, labram) = drawn
        return cbramod["up"], cbramod["down"]["bias"], labram["attention_out"]["kernel"]

    up, bias, kernels = layers_of(jax.random.key(0))
    assert abs(up["kernel"].std() / (2 / 12) ** 0.5 - 1) < 0.1
    assert 0.5 * 32**-0.5 < np.abs(up["bias"]).max() <= 32**-0.5
    assert 0.5 * 12**-0.5 < np.abs(bias).max() <= 12**-0.5
    for i, kernel in enumerate(kernels):
        assert abs(kernel.std() / (0.02 / (2 * (i + 1)) ** 0.5) - 1) < 0.1


def windows(cfg, **changed):
    c, n = cfg.grid
    return {"channels": cfg.channels, "rate": 200.0, "n_times": 200 * n} | changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": 250.0}, "w/manifest.json: rate is 250 Hz.*--data.rate 200"),
        ({"channels": ("C3", "Fz", "P8")}, "another order.*--data.channels Fz C3 P8"),
        ({"channels": ("Fz", "C3")}, "Fz, C3, others than"),
        ({"units": ("uV", "zscore", "uV")}, "units are zscore.*--data.zscore none"),
        ({"n_times": 500}, "500 samples.*2 patches of 200.*--data.window_s 2"),
    ],
)
def test_windows_that_do_not_fit_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        check_windows(CBRAMOD, **windows(CBRAMOD, **changed), source="w/manifest.json")


def test_windows_that_fit_pass_in_any_case():
    upper = tuple(name.upper() for name in CHANNELS)
    units = ("uV",) * 3
    fitting = windows(LABRAM, channels=upper, units=units)
    check_windows(LABRAM, **fitting, source="w")


def test_what_a_model_cannot_take_is_refused():
    with pytest.raises(InputError, match=r"no embedding for EOG.*--data.channels"):
        LabramConfig(channels=("Fz", "EOG"))
    with pytest.raises(
        InputError, match=r"16 patches.*got num_patches=30.*window_s 16"
    ):
        LabramConfig(num_patches=30)
    with pytest.raises(ValueError, match=r"Need \[b, 3, 400\]"):
        shapes_of(MODULES["cbramod"], t=600)
    with pytest.raises(ValueError, match="no multiple of groups=5"):
        CBraModConfig(filters=8)
    with pytest.raises(ValueError, match="num_heads must be even"):
        CBraModConfig(num_heads=5)
    with pytest.raises(ValueError, match="multiple of 4"):
        LabramConfig(filters=6)
    with pytest.raises(ValueError, match=r"\[0, 1\); got 1.0"):
        LabramConfig(drop_path=1.0)
    with pytest.raises(ValueError, match="num_patches=0"):
        CBraModConfig(num_patches=0)
