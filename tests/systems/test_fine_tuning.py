"""How a foundation model is brought to a task: what is trained, and how fast."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.config import preset_config
from eegkd.models import CBraModConfig, LabramConfig, LoraConfig
from eegkd.models.grid import PATCH
from eegkd.systems import SignalConfig
from eegkd.systems.dlink import make_system
from eegkd.systems.dlink.config import DlinkConfig, TeacherConfig
from eegkd.systems.entry import find
from eegkd.train.optimiser import make_optimiser
from eegkd.typing import StepKeys

CONFIG = DlinkConfig(
    signal=SignalConfig(
        n_chans=2, n_times=PATCH, channels=("C3", "C4"), units=("uV", "uV")
    ),
    teacher=TeacherConfig(
        head="one_layer",
        # Not 6: so many tokens a batch has, and shapes below are told apart.
        cbramod=CBraModConfig(filters=5, depth=2, num_heads=2, ffn_dim=7),
        labram=LabramConfig(depth=2, ffn_dim=6),
        lora=LoraConfig(rank=3, targets=("layers/*/qkv", "layers/up")),
    ),
)
BATCH = {
    "signal": (50 * np.random.default_rng(0).normal(size=(3, 2, PATCH))).astype("f4"),
    "label": np.array([0, 1, 1], np.int32),
}
INNER = {"lora_down", "lora_up"}


def teacher_of(**changes):
    teacher = dataclasses.replace(CONFIG.teacher, **changes)
    return make_system(dataclasses.replace(CONFIG, teacher=teacher)).stages[0]


def shapes_of(stage):
    return jax.eval_shape(lambda key: stage.init(key, BATCH, {}), jax.random.key(0))


def filled(tree):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.float32(0.4 * rng.normal(size=x.shape)), tree)


def loss_and_gradient(stage):
    """Of class logits by what is trained, with dropout."""

    def run(params, variables):
        def loss(params):
            keys = StepKeys(jax.random.key(1), jax.random.key(2))
            given = variables._replace(params=params)
            out, _ = stage.forward(given, BATCH, {}, train=True, key=keys)
            return jnp.sum(out["logits"] ** 2)

        return jax.value_and_grad(loss)(params)

    return run


@pytest.mark.parametrize("train", ["frozen", "lora"])
def test_frozen_parts_have_no_gradient_and_a_finished_teacher_is_one_model(train):
    stage = teacher_of(train=train)
    made = shapes_of(stage)
    adapters = {"lora"} if train == "lora" else set()
    assert made.params.keys() == {"head"} | adapters
    assert made.frozen.keys() == {"backbone"}
    _, grads = jax.eval_shape(loss_and_gradient(stage), made.params, made)
    assert jax.tree.structure(grads) == jax.tree.structure(made.params)
    if adapters:
        layers = made.params["lora"]["layers"]
        assert layers["spatial"]["qkv"].keys() == layers["up"].keys() == INNER
        assert layers["temporal"]["qkv"]["lora_down"].shape == (2, 20, 3)
        assert "down" not in layers
    final = jax.eval_shape(stage.finish, made)
    assert (final.params.keys(), final.frozen) == ({"backbone", "head"}, {})
    whole = shapes_of(teacher_of(train="full"))
    assert jax.tree.map(jnp.shape, final) == jax.tree.map(jnp.shape, whole)


@pytest.mark.slow
def test_a_finished_lora_teacher_says_what_it_said_in_training():
    lora = LoraConfig(rank=3, targets=("layers/qkv", "layers/down"))
    stage = teacher_of(train="lora", name="labram", lora=lora)
    made = filled(shapes_of(stage))

    @jax.jit
    def both(made):
        own, merged = (
            stage.forward(v, BATCH, {}, train=False, key=None)[0]
            for v in (made, stage.finish(made))
        )
        plain = made._replace(params={"head": made.params["head"]})
        bare, _ = stage.forward(plain, BATCH, {}, train=False, key=None)
        return own, merged, bare

    own, merged, bare = both(made)
    for name in ("block_0", "block_1", "logits"):
        np.testing.assert_allclose(own[name], merged[name], rtol=1e-3, atol=1e-4)
    assert np.abs(own["block_0"] - bare["block_0"]).max() > 1e-2


@pytest.mark.parametrize("train", ["lora", "full"])
def test_no_buffer_of_a_frozen_layers_gradient_is_made(train):
    """The control is the same model, all of it trained."""
    stage = teacher_of(train=train)
    made = filled(shapes_of(stage))
    tree = made.frozen or made.params
    kernels = {
        x.shape
        for path, x in jax.tree_util.tree_leaves_with_path(tree["backbone"]["layers"])
        if path[-1].key == "kernel"
    }
    assert len(kernels) >= 3
    text = jax.jit(loss_and_gradient(stage)).lower(made.params, made).as_text()
    written = {
        shape
        for shape in kernels
        for line in text.splitlines()
        # How layers' gradients become a stack, in a row and in a loop.
        if ("stablehlo.concatenate" in line or "dynamic_update_slice" in line)
        and line.endswith(f"tensor<{'x'.join(map(str, shape))}xf32>")
    }
    assert written == (set() if train == "lora" else kernels)


def rates(stage, made, optim):
    """What one update of equal gradients moves each parameter by, over the rate."""
    tx = make_optimiser(optim, 10, stage.labels, stage.depths)
    grads = jax.tree.map(lambda x: np.ones(x.shape, np.float32), made.params)
    update = jax.jit(lambda grads: tx.update(grads, tx.init(grads), grads)[0])
    return jax.tree.map(lambda x: -np.asarray(x) / optim.learning_rate, update(grads))


def of_teacher(preset):
    optim = preset_config(find("dlink"), preset).optim
    return dataclasses.replace(
        optim,
        learning_rate=optim.teacher_learning_rate,
        weight_decay=0.0,
        warmup_fraction=0.0,
    )


def test_cbramods_head_learns_five_times_as_fast():
    optim, stage = of_teacher("paper"), teacher_of()
    assert optim.learning_rate * optim.head_scale == pytest.approx(5e-4)
    found = rates(stage, shapes_of(stage), optim)
    for part, want in (("backbone", 1.0), ("head", 5.0)):
        for leaf in jax.tree.leaves(found[part]):
            np.testing.assert_allclose(leaf, want, rtol=1e-4)


@pytest.mark.parametrize("train", ["full", "lora"])
def test_labrams_layers_learn_slower_the_deeper_they_stand(train):
    """Published: 0.65 to the power of L + 1 - i; 0 is the embedding, L + 1 the head."""
    config = LoraConfig(targets=("layers/*",))
    optim, stage = (
        of_teacher("labram"),
        teacher_of(name="labram", train=train, lora=config),
    )
    found = rates(stage, shapes_of(stage), optim)
    np.testing.assert_allclose(found["head"]["last"]["kernel"], 1, rtol=1e-4)
    layers = found["lora" if train == "lora" else "backbone"]["layers"]
    for leaf in jax.tree.leaves(layers):
        np.testing.assert_allclose(leaf[0], 0.65**2, rtol=1e-4)
        np.testing.assert_allclose(leaf[1], 0.65, rtol=1e-4)
    if train == "full":
        backbone = found["backbone"]
        for name, want in (("position", 0.65**3), ("cls_token", 0.65**3), ("time", 1)):
            np.testing.assert_allclose(backbone[name], want, rtol=1e-4)
        for leaf in jax.tree.leaves(backbone["embedding"]):
            np.testing.assert_allclose(leaf, 0.65**3, rtol=1e-4)
        for leaf in jax.tree.leaves(backbone["norm"]):
            np.testing.assert_allclose(leaf, 1, rtol=1e-4)
