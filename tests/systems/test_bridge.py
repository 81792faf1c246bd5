import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from eegkd.config import preset_config
from eegkd.evaluate.controls import alpha_0, without_teacher
from eegkd.losses import Term, fitnet, total_loss
from eegkd.models import ConformerConfig
from eegkd.systems import SignalConfig, upstream_inputs
from eegkd.systems.bridge import add_bridge
from eegkd.systems.distilclip_eeg import ENTRY
from eegkd.systems.distilclip_eeg.config import (
    ProjConfig,
    StudentConfig,
    TextConfig,
)
from eegkd.train import init_state, make_train_step
from eegkd.train.inputs import upstream_tensors, with_labelled
from eegkd.typing import StepKeys
from experiments.families import FAMILIES
from tests.support import toy


class Lift(nn.Module):
    """Brings the student's vectors to the teacher's."""

    @nn.compact
    def __call__(self, student, teacher):
        return {"up": nn.Dense(teacher.shape[-1])(student), "target": teacher}


TERM = Term("lift", fitnet, ("student.lift_up", "student.lift_target"), 0.5)
INPUTS = ("student.embedding", "teacher.embedding")


@pytest.fixture(scope="module")
def bridged():
    system = add_bridge(toy.make_system(), "student", "lift", Lift(), INPUTS, TERM)
    return system, toy.make_variables(system)


def test_the_stage_starts_as_without_a_bridge(bridged):
    _, made = bridged
    params = dict(made["student"].params)
    assert params.pop("lift")["Dense_0"]["kernel"].shape == (toy.WIDTH, toy.WIDTH)
    want = toy.make_variables(toy.make_system())["student"].params
    jax.tree.map(np.testing.assert_array_equal, params, want)


def test_it_is_trained_with_the_stage_and_left_behind(bridged):
    system, made = bridged
    stage, tx = system.stages[-1], optax.sgd(0.3)
    assert upstream_inputs(stage) == ("teacher.logits", "teacher.embedding")
    step = jax.jit(make_train_step(system, "student", tx))
    state = init_state(stage, made["student"], tx, jax.random.key(0))
    raw = []
    for _ in range(20):
        frozen = made["student"].frozen
        state, metrics = step(state, frozen, made, toy.make_batch())
        raw.append(metrics["raw/lift"])
    assert raw[-1] < 0.5 * raw[0]
    finished = stage.finish(state.variables(made["student"].frozen))
    assert set(finished.params) == {"in", "out", "logit_scale"}


def test_controls_take_its_terms_for_the_teachers(bridged):
    system, _ = bridged
    off = {term.name: term.weight for term in alpha_0(system).stages[-1].terms}
    assert off == {"clip": 1.0, "kd": 0.0, "lift": 0.0}
    alone = without_teacher(system).stages[-1]
    assert [term.name for term in alone.terms] == ["clip"]
    batch = toy.make_batch()
    variables = alone.init(jax.random.key(0), batch, {})
    assert "lift" not in variables.params
    forward = functools.partial(alone.forward, train=True, key=None)
    tensors, _ = jax.eval_shape(forward, variables, batch, {})
    assert "lift_up" not in tensors


def test_a_taken_name_is_refused(bridged):
    with pytest.raises(ValueError, match="these names already: lift"):
        add_bridge(bridged[0], "student", "other", Lift(), INPUTS, TERM)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(type(preset_config(ENTRY, "small"))):
    """Of a student with 4 tokens, from a teacher with 16."""

    signal: SignalConfig = SignalConfig(n_chans=3, n_times=128, rate=64.0)
    eeg: ConformerConfig = ConformerConfig(
        dim=16, depth=2, ffn_mult=1, num_heads=2, kernel=5, stem_kernels=(7, 3)
    )
    text: TextConfig = TextConfig(dim=16, depth=1, num_heads=2)
    proj: ProjConfig = ProjConfig(dim=8)
    student: StudentConfig = StudentConfig(depth=1, stem_strides=(8, 4), init="random")


@pytest.mark.parametrize(
    "name",
    [
        n
        if n in ("transport", "attention")
        else pytest.param(n, marks=pytest.mark.slow)
        for n in FAMILIES
    ],
)
def test_families_join_sets_of_16_and_4_tokens(name):
    system = FAMILIES[name](Config())
    teacher_stage, student_stage = system.stages
    batch = {
        "signal": np.zeros((4, 3, 128), np.float32),
        "label": np.arange(4, dtype=np.int32) % 2,
    }

    def run(key):
        teacher = teacher_stage.finish(teacher_stage.init(key, batch, {}))
        student = student_stage.init(key, batch, {"teacher": teacher})
        up = upstream_tensors(system, student_stage, {"teacher": teacher}, batch)
        keys = StepKeys(key, key)

        def loss(params):
            own, _ = student_stage.forward(
                student._replace(params=params), batch, up, train=True, key=keys
            )
            tensors = {**up, "student": own, "batch": with_labelled(batch)}
            return total_loss(student_stage.terms, tensors, 0)[0], (own, up)

        grads, (own, up) = jax.grad(loss, has_aux=True)(student.params)
        return grads, student.params, own["tokens"]

    grads, params, tokens = jax.eval_shape(run, jax.random.key(0))
    assert tokens.shape == (4, 4, 16)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert ("mhca" in params) == (name in ("attention", "spectral"))
