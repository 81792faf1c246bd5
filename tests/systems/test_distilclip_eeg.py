import dataclasses
import functools

import jax
import numpy as np
import pytest

from eegkd.config import override, preset_config
from eegkd.evaluate.controls import SYSTEM_CONTROLS
from eegkd.models import ConformerConfig
from eegkd.systems import SignalConfig, distilclip_eeg, get_stage, predict_fn
from eegkd.systems.distilclip_eeg import ENTRY
from eegkd.systems.distilclip_eeg.config import StudentConfig, TextConfig
from eegkd.systems.distilclip_eeg.system import class_vectors, parameter_groups
from eegkd.systems.distilclip_eeg.text import make_text_side, text_notes
from eegkd.typing import StepKeys

SIGNAL = SignalConfig(n_chans=3, n_times=128, rate=64.0)


TINY = dataclasses.replace(
    preset_config(ENTRY, "small"),
    signal=SIGNAL,
    eeg=ConformerConfig(
        dim=16, depth=2, ffn_mult=1, num_heads=2, kernel=5, stem_kernels=(7, 3)
    ),
    text=TextConfig(dim=16, depth=1, num_heads=2),
    student=StudentConfig(depth=1),
)


def small(**changes):
    return dataclasses.replace(TINY, **changes)


def batch(config, b=4, seed=0):
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(b, config.signal.n_chans, config.signal.n_times))
    label = np.arange(b) % len(config.signal.classes)
    return {"signal": signal.astype(np.float32), "label": label.astype(np.int32)}


@functools.cache
def init_both(config, seed=0):
    system = distilclip_eeg.make_system(config)
    data = batch(config)
    # Cheaper to compile than the usual generator.
    keys = [jax.random.key(n, impl="unsafe_rbg") for n in (seed, 1)]
    teacher_stage, student_stage = system.stages
    teacher = jax.jit(teacher_stage.init)(keys[0], data, {})
    finished = jax.jit(teacher_stage.finish)(teacher)
    student = jax.jit(student_stage.init)(keys[1], data, {"teacher": finished})
    return system, data, teacher, finished, student


def count(tree, *skip):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return sum(
        np.prod(leaf.shape, dtype=int)
        for path, leaf in leaves
        if not any(word in jax.tree_util.keystr(path) for word in skip)
    )


def test_paper_preset_counts_the_published_totals():
    config = preset_config(ENTRY, "paper")
    data = {"signal": np.zeros((1, 19, 800)), "label": np.zeros(1, np.int32)}
    system = distilclip_eeg.make_system(config)
    shapes = jax.eval_shape(
        lambda k: system.stages[0].init(k, data, {}), jax.random.key(0)
    )
    own = jax.eval_shape(
        lambda k: system.stages[1].init(k, data, {}), jax.random.key(0)
    )
    teacher = count(shapes.params, "text", "tau")
    student = count(own.params, "text", "tau")
    assert teacher == 30_781_200
    assert student == 17_870_800
    assert 0.55 < student / teacher < 0.62
    assert count(shapes.params["eeg"]["block_0"], "prompts") == 3_224_400


@pytest.mark.parametrize(
    ("source", "mode"),
    [
        pytest.param("templates", "handcrafted", marks=pytest.mark.slow),
        pytest.param("none", "learnable", marks=pytest.mark.slow),
        pytest.param("templates", "learnable", marks=pytest.mark.nightly),
        pytest.param("templates", "none", marks=pytest.mark.nightly),
        pytest.param("random_class_vectors", "learnable", marks=pytest.mark.nightly),
    ],
)
def test_every_text_source_and_prompt_mode_gives_probabilities(source, mode):
    prompt = dataclasses.replace(TINY.prompt, mode=mode)
    text = dataclasses.replace(TINY.text, source=source)
    config = small(text=text, prompt=prompt)
    system, data, teacher, finished, student = init_both(config)
    for name, variables in [("teacher", finished), ("student", student)]:
        prob = predict_fn(system, name)(variables, data)
        assert prob.shape == (4, 2)
        np.testing.assert_allclose(prob.sum(-1), 1, rtol=1e-5)
    keys = StepKeys(jax.random.key(0), jax.random.key(1))
    tensors, _ = system.stages[0].forward(teacher, data, {}, train=True, key=keys)
    for term in system.stages[0].terms:
        read = [i.partition(".")[2] for i in term.inputs if i.startswith("teacher.")]
        assert set(read) <= set(tensors)


@pytest.mark.slow
def test_finishing_changes_no_prediction_and_drops_the_text_tower():
    system, data, teacher, finished, _ = init_both(small())
    np.testing.assert_allclose(
        predict_fn(system, "teacher")(teacher, data),
        predict_fn(system, "teacher")(finished, data),
        rtol=1e-5,
    )
    assert "text" not in finished.params
    assert set(finished.frozen) == {"texts", "class_vectors"}


def test_student_holds_the_signal_path_and_the_class_vectors_alone():
    system, data, _, finished, student = init_both(small())
    assert set(student.params) == {"eeg", "projection", "tau"}
    assert set(student.frozen) == {"texts", "class_vectors"}
    assert system.inputs == ("signal",)
    only = {"signal": data["signal"]}
    jaxpr = jax.make_jaxpr(functools.partial(predict_fn(system, "student"), student))(
        only
    )
    assert len(jaxpr.in_avals) == 1
    np.testing.assert_array_equal(
        student.frozen["class_vectors"], finished.frozen["class_vectors"]
    )


def test_skip_init_copies_every_second_block():
    config = small()
    _, data, teacher, finished, student = init_both(config)
    jax.tree.map(
        np.testing.assert_array_equal,
        student.params["eeg"]["block_0"],
        teacher.params["eeg"]["block_1"],
    )
    random = small(student=StudentConfig(depth=1, init="random"))
    init = jax.jit(get_stage(distilclip_eeg.make_system(random), "student").init)
    key = jax.random.key(1, impl="unsafe_rbg")
    student = init(key, data, {"teacher": finished})
    assert not np.allclose(
        student.params["projection"]["dense"]["kernel"],
        teacher.params["projection"]["dense"]["kernel"],
    )


def test_without_a_teacher_the_student_has_its_own_text_side():
    config = small()
    system = distilclip_eeg.make_system(config)
    init = functools.partial(get_stage(system, "student").init, batch=batch(config))
    student = jax.eval_shape(init, jax.random.key(0), upstream={})
    assert "text" in student.params


def test_frozen_bert_is_not_trained():
    text = TextConfig(dim=16, depth=1, num_heads=2, train="frozen")
    config = small(text=text)
    system = distilclip_eeg.make_system(config)
    init = functools.partial(system.stages[0].init, batch=batch(config))
    variables = jax.eval_shape(init, jax.random.key(0), upstream={})
    assert "bert" in variables.frozen
    assert set(variables.params["text"]) == {"projection", "prompts"}


def test_prior_of_training_returns_in_predictions():
    system, data, _, finished, _ = init_both(small())
    uneven = finished.state | {"class_counts": np.float32([3.0, 1.0])}
    predict = jax.jit(predict_fn(system, "teacher"))
    even = predict(finished, data)
    shifted = predict(finished._replace(state=uneven), data)
    odds = (shifted[:, 0] / shifted[:, 1]) / (even[:, 0] / even[:, 1])
    np.testing.assert_allclose(odds, 3.0, rtol=1e-4)


def test_unlabelled_examples_do_not_count_as_a_class():
    config = small()
    system, data, teacher, _, _ = init_both(config)
    data = data | {"label": np.array([0, -1, 1, -1], np.int32)}
    keys = StepKeys(jax.random.key(0), jax.random.key(1))
    forward = jax.jit(functools.partial(system.stages[0].forward, train=True))
    _, state = forward(teacher, data, {}, key=keys)
    np.testing.assert_array_equal(state["class_counts"], [2.0, 2.0])


@pytest.mark.slow
def test_reports_from_a_file_train_and_are_stamped_where_they_name_a_class(tmp_path):
    path = tmp_path / "reports.csv"
    path.write_text(
        "label,text\nbackground,irregular waves\nseizure,a seizure with spikes\n"
        "seizure,sharp runs\n"
    )
    text = dataclasses.replace(TINY.text, source="file", file=str(path))
    config = small(text=text)
    system = distilclip_eeg.make_system(config)
    variables = system.stages[0].init(jax.random.key(0), batch(config), {})
    assert class_vectors(make_text_side(config), variables).shape == (2, 128)
    (note,) = text_notes(config)
    assert "seizure" in note
    assert text_notes(small()) == ()


def test_parameter_groups_name_bert():
    teacher = init_both(small())[2]
    assert distilclip_eeg.make_system(small()).stages[0].labels is None
    given = small(text=dataclasses.replace(TINY.text, bert="folder"))
    labels = parameter_groups(given)(teacher.params)
    assert set(jax.tree.leaves(labels["text"]["bert"])) == {"bert"}
    assert set(jax.tree.leaves(labels["eeg"])) == {"default"}


def test_the_quickstarts_student_differs_from_its_control_by_soft_targets_alone():
    config = dataclasses.replace(preset_config(ENTRY, "quickstart"), signal=SIGNAL)
    system = distilclip_eeg.make_system(config)
    student = system.stages[-1]
    control = SYSTEM_CONTROLS["alpha_0"](system).stages[-1]
    assert control.init is student.init  # The same start and class vectors.
    assert control.forward is student.forward
    weights = [{t.name: t.weight for t in stage.terms} for stage in (student, control)]
    assert weights == [{"l1": 0.5, "kd": 0.5}, {"l1": 1.0, "kd": 0.0}]
    assert {"alpha_0", "no_teacher", "a_a", "skip"} < set(config.rows)
    skip = ENTRY.variants["skip"]
    assert skip.same_teacher
    starts = [c.student.init for c in (config, override(config, skip.changes))]
    assert starts == ["random", "skip"]
