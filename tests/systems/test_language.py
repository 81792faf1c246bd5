import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eegkd.errors import InputError
from eegkd.models import LoraConfig, find_linears, merge_adapters
from eegkd.models.clip import ClipVisionConfig
from eegkd.models.decoder import Decoder, DecoderConfig
from eegkd.models.llava import Llava, LlavaConfig
from eegkd.systems import predict_fn
from eegkd.systems.language import (
    join_base,
    language_stage,
    language_system,
    run_language,
    split_variables,
    vocabulary,
)
from eegkd.train import init_state, make_train_step
from eegkd.typing import StepKeys
from tests.oracles.losses import next_token as oracle

CFG = DecoderConfig(
    vocab_size=24,
    dim=16,
    depth=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    ffn_dim=20,
    init_std=0.3,
)
LORA = LoraConfig(rank=2, alpha=4.0)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 24, (4, 6)).astype(np.int32)
    mask = np.ones(ids.shape, bool)
    mask[1, :2] = False  # padding on the left
    labels = np.where(np.arange(6) < 3, -100, ids).astype(np.int32)
    labels[3] = -100
    return {"ids": ids, "mask": mask, "labels": labels}


def make(cfg=CFG, lora=LORA, **options):
    module = Decoder(cfg)
    linears = find_linears(module, jnp.zeros((1, 2), int))
    return module, language_system(module, lora=lora, linears=linears, **options)


@pytest.fixture(scope="module")
def adapted(batch):
    """The system with adapters that change something, and its variables."""
    module, system = make()
    made = jax.jit(system.stages[0].init)(jax.random.key(0), batch, {})
    rng = np.random.default_rng(3)
    draw = lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32)
    return module, system, made._replace(params=jax.tree.map(draw, made.params))


def forward(stage, variables, batch):
    run = jax.jit(lambda *args: stage.forward(*args, {}, train=False, key=None)[0])
    return run(variables, batch)


def test_the_loss_is_that_of_merged_weights(adapted, batch):
    module, system, variables = adapted
    out = forward(system.stages[0], variables, batch)
    lora = variables.params["lora"]
    merge = jax.jit(functools.partial(merge_adapters, alpha=LORA.alpha))
    merged = merge(join_base(variables), lora)
    tokens = jax.jit(module.apply)({"params": merged}, batch["ids"], batch["mask"])
    tokens = tokens["tokens"]
    want = oracle(tokens, vocabulary(merged), batch["labels"])
    np.testing.assert_allclose(out["nll"], want, rtol=1e-4)
    np.testing.assert_array_equal(out["num_targets"], [3, 3, 3, 0])
    # The control: without adapters it is another loss.
    plain = jax.jit(lambda v: run_language(module, v, batch, lora=None))(variables)
    plain = plain["tokens"]
    assert np.abs(plain - tokens).max() > 1e-2


def test_adapters_alone_are_trained(adapted, batch):
    _, system, variables = adapted
    assert set(variables.params) == {"base", "lora"}
    assert variables.params["base"] == {}
    assert set(variables.frozen) == {"embed", "layers", "norm", "lm_head"}
    assert set(variables.params["lora"]) == {"layers"}
    assert len(variables.params["lora"]["layers"]) == 7
    tx = optax.sgd(0.1)
    state = init_state(system.stages[0], variables, tx, jax.random.key(0))
    step = jax.jit(make_train_step(system, "student", tx))
    after, metrics = step(state, variables.frozen, {}, batch)
    values = oracle_mean(variables, system, batch)
    np.testing.assert_allclose(metrics["raw/next_token"], values, rtol=1e-5)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, state.params)
    assert all(x > 0 for x in jax.tree.leaves(moved))


@pytest.mark.slow
def test_dropout_is_the_adapters_and_of_training_alone(adapted, batch):
    _, _, variables = adapted
    _, system = make(lora=dataclasses.replace(LORA, dropout=0.5))
    stage = system.stages[0]
    keys = [StepKeys(jax.random.key(9), jax.random.key(i)) for i in range(2)]
    run = jax.jit(
        lambda key, train: stage.forward(variables, batch, {}, train=train, key=key)[0],
        static_argnums=1,
    )
    a, again, b = (run(keys[i], True)["nll"] for i in (0, 0, 1))
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - b)[:3].max() > 1e-3
    plain = forward(stage, variables, batch)["nll"]
    np.testing.assert_allclose(run(keys[0], False)["nll"], plain, rtol=1e-6)


def oracle_mean(variables, system, batch):
    """The mean over all targets, whatever example they are in."""
    out = forward(system.stages[0], variables, batch)
    return np.sum(out["nll"] * out["num_targets"]) / np.sum(out["num_targets"])


@pytest.mark.slow
def test_accumulated_steps_are_those_of_the_whole_batch(adapted, batch):
    _, system, variables = adapted
    tx = optax.sgd(0.1)
    found = []
    for accumulate in (1, 2):
        state = init_state(system.stages[0], variables, tx, jax.random.key(0))
        step = jax.jit(make_train_step(system, "student", tx, accumulate=accumulate))
        found.append(step(state, variables.frozen, {}, batch)[0].params)
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_whole_weights_are_trained_in_single_precision(batch):
    cfg = dataclasses.replace(CFG, tied=True, param_dtype=jnp.bfloat16)
    _, system = make(cfg, lora=None)
    stage = system.stages[0]
    made = jax.eval_shape(lambda x: stage.init(jax.random.key(0), x, {}), batch)
    assert made.frozen == {}
    assert set(made.params["base"]) == {"embed", "layers", "norm"}
    assert {x.dtype for x in jax.tree.leaves(made.params)} == {jnp.dtype("float32")}


def test_prediction_is_of_the_next_word(adapted, batch):
    module, system, variables = adapted
    got = jax.jit(predict_fn(system, "student"))(variables, batch)
    assert got.shape == (4, 24)
    np.testing.assert_allclose(got.sum(axis=-1), 1, rtol=1e-5)
    out = jax.jit(lambda v: run_language(module, v, batch, lora=LORA))(variables)
    want = jax.nn.softmax(out["logits"][:, -1])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_a_projector_is_trained_beside_adapters():
    vision = ClipVisionConfig(
        dim=8, depth=2, num_heads=2, ffn_dim=8, image_size=28, param_dtype=jnp.bfloat16
    )
    module = Llava(LlavaConfig(vision=vision, language=CFG))
    ids = np.ones((2, 8), np.int32)
    at = np.full((2, 8), -1, np.int32)
    at[:, 1:5] = np.arange(4)
    batch = {
        "ids": ids,
        "mask": ids > 0,
        "labels": np.where(at >= 0, -100, ids).astype(np.int32),
        "visual_at": at,
        "pixels": np.ones((2, 1, 28, 28, 3), np.float32),
    }
    lora = dataclasses.replace(LORA, targets=("language/layers/*",))
    linears = find_linears(module, ids)
    stage = language_stage(module, lora=lora, linears=linears, trained=("projector",))
    variables = jax.jit(stage.init)(jax.random.key(0), batch, {})
    assert set(variables.params["base"]) == {"projector"}
    assert set(variables.frozen) == {"language", "vision"}
    assert set(variables.params["lora"]) == {"language"}

    def loss(params):
        given = variables._replace(params=params)
        return stage.forward(given, batch, {}, train=True, key=None)[0]["nll"].sum()

    grads = jax.jit(jax.grad(loss))(variables.params)
    kernel = grads["base"]["projector"]["linear_1"]["kernel"]
    assert np.abs(kernel).max() > 0


def test_an_unknown_group_is_refused():
    with pytest.raises(ValueError, match="has the groups a, b; got c"):
        split_variables(jax.random.key(0), {"a": {}, "b": {}}, None, trained=("a", "c"))


def test_adapters_of_the_head_are_refused(adapted):
    module, _, variables = adapted
    linears = ("layers/query", "lm_head")
    config = dataclasses.replace(LORA, targets=("*",))
    with pytest.raises(InputError, match="lora.targets .*the head"):
        split_variables(jax.random.key(0), variables.frozen, config, linears)
