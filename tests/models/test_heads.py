import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.models import TaskHead, cbramod_head, labram_head


def shapes_of(head, tokens, d=200):
    tensors = {
        "tokens": jax.ShapeDtypeStruct((1, tokens, d), jnp.float32),
        "pooled": jax.ShapeDtypeStruct((1, d), jnp.float32),
    }
    return jax.eval_shape(head.init, jax.random.key(0), tensors)


@pytest.mark.parametrize(
    ("c", "n", "k", "want"),
    [
        (32, 10, 9, 128_404_009),  # FACED
        (16, 10, 1, 64_402_401),  # CHB-MIT and TUAB
        (64, 4, 4, 41_121_804),  # PhysioNet-MI
        (64, 3, 5, 23_161_805),  # BCIC2020-3
        (32, 4, 1, 20_641_201),  # SHU-MI
        (20, 5, 1, 20_201_401),  # MentalArithmetic
        (19, 5, 1, 19_201_401),  # Mumtaz2016
        (16, 5, 6, 16_202_406),  # TUEV
        (22, 4, 4, 14_241_804),  # BCIC-IV-2a
        (62, 1, 5, 10_082_005),  # SEED-V
    ],
)
def test_published_counts(c, n, k, want):
    head = cbramod_head("all_patch", num_patches=n, num_classes=k)
    shapes = shapes_of(head, c * n)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == want


@pytest.mark.parametrize(
    ("hidden", "want"), [(None, 15), ((), 93), ((7,), 241), ((4, 7), 183)]
)
def test_heads_equal_numpy(hidden, want):
    rng = np.random.default_rng(0)
    head = TaskHead(3, hidden)
    tensors = {
        "tokens": rng.normal(size=(2, 6, 5)).astype(np.float32),
        "pooled": rng.normal(size=(2, 4)).astype(np.float32),
    }
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        jax.eval_shape(head.init, jax.random.key(0), tensors)["params"],
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == want
    got = jax.jit(head.apply)({"params": params}, tensors)
    x = tensors["pooled"] if hidden is None else tensors["tokens"].reshape(2, -1)
    x = np.float64(x)
    for i in range(len(hidden or ())):
        x = x @ params[f"hidden_{i}"]["kernel"] + params[f"hidden_{i}"]["bias"]
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    x = x @ params["last"]["kernel"] + params["last"]["bias"]
    np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-5)


def test_dropout_acts_between_layers_in_training_alone():
    tensors = {"tokens": jnp.ones((2, 6, 5), jnp.bfloat16)}
    head = TaskHead(3, (40,), dropout=0.5)
    variables = jax.jit(head.init)(jax.random.key(0), tensors)

    @jax.jit
    def both(key):
        rngs = {"dropout": key}
        drawn = head.apply(variables, tensors, train=True, rngs=rngs)
        return head.apply(variables, tensors), drawn

    still, drawn = both(jax.random.key(1))
    assert still.dtype == jnp.float32
    np.testing.assert_array_equal(still[0], still[1])
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3


def test_first_weights():
    head, tensors = labram_head(4), {"pooled": jnp.ones((1, 200))}
    last = jax.jit(head.init)(jax.random.key(0), tensors)["params"]["last"]
    assert 1e-5 < last["kernel"].std() < 3e-5
    np.testing.assert_array_equal(last["bias"], 0)
    head = cbramod_head("average", num_patches=4, num_classes=4)
    last = jax.jit(head.init)(jax.random.key(0), tensors)["params"]["last"]
    assert 0.06 < np.abs(last["kernel"]).max() <= 200**-0.5


def test_unknown_heads_are_refused():
    with pytest.raises(ValueError, match="Unknown head 'mlp'; there is all_patch"):
        cbramod_head("mlp", num_patches=4, num_classes=2)
