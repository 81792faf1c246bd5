"""A student that sees a few of its teacher's channels, whatever the system."""

import dataclasses

import jax
import numpy as np
import pytest

from eegkd.config import RunConfig, preset_config
from eegkd.errors import InputError
from eegkd.evaluate.controls import alpha_0, without_teacher
from eegkd.models import ConformerConfig
from eegkd.systems import SignalConfig, SystemConfig, distilclip_eeg, predict_fn
from eegkd.systems.channels import (
    as_deployed,
    channel_notes,
    check_columns,
    see_channels,
    student_columns,
    student_signal,
)
from eegkd.systems.distilclip_eeg import ENTRY
from eegkd.systems.distilclip_eeg.config import DistilClipConfig
from tests.support import toy
from tests.support.stores import tiny_store

SIGNAL = SignalConfig(
    n_chans=4,
    n_times=64,
    rate=64.0,
    channels=("Fp1", "T7", "EEG X", "O2"),
    units=("uV", "uV", "mV", "uV"),
)
CONFIG = SystemConfig(signal=SIGNAL, student_channels=("o2", "T3"))


def test_channels_are_found_in_any_spelling_and_keep_their_order():
    assert student_columns(CONFIG) == (3, 1)
    seen = student_signal(CONFIG)
    assert (seen.n_chans, seen.channels, seen.units) == (
        *(2, ("O2", "T7")),
        ("uV", "uV"),
    )
    alone = as_deployed(CONFIG)
    assert (alone.signal, alone.student_channels) == (seen, ())
    every = dataclasses.replace(CONFIG, student_channels=())
    assert (student_columns(every), student_signal(every)) == ((), SIGNAL)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("C3", "O2", "F9"), "--student_channels C3 F9: the windows have Fp1 T7"),
        (("T3", "T7"), "T3 T7 names a channel twice"),
    ],
)
def test_channels_that_cannot_be_seen_are_named(asked, message):
    with pytest.raises(InputError, match=message):
        student_columns(dataclasses.replace(CONFIG, student_channels=asked))


def test_data_without_names_say_how_to_name_them():
    config = SystemConfig(student_channels=("C3",))
    with pytest.raises(InputError, match=r"without names \(--signal.channels\)"):
        student_columns(config)


def test_only_the_student_is_given_fewer_channels():
    """`toy` has two channels and takes windows of any number."""
    system = see_channels(toy.make_system(), (1,))
    batch, key = toy.make_batch(4), jax.random.key(0)
    teacher, student = (
        jax.eval_shape(lambda key, stage=stage: stage.init(key, batch, {}), key)
        for stage in system.stages
    )
    assert teacher.params["in"]["kernel"].shape == (2 * toy.TIMES, 8)
    assert student.params["in"]["kernel"].shape == (1 * toy.TIMES, 5)
    rng = np.random.default_rng(0)
    filled = {
        name: jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)
        for name, shapes in (("teacher", teacher), ("student", student))
    }
    other = {**batch, "signal": batch["signal"] * np.float32([[[5.0], [1.0]]])}
    for name, same in (("teacher", False), ("student", True)):
        first, second = (
            predict_fn(system, name)(filled[name], x) for x in (batch, other)
        )
        assert np.array_equal(first, second) == same
    own, _ = system.stages[-1].forward(
        filled["student"], batch, {}, train=False, key=None
    )
    bare = toy.make_system()
    alone = {**batch, "signal": batch["signal"][:, 1:]}
    want = predict_fn(bare, "student")(filled["student"], alone)
    # Three programs: logits of about 20 differ in their last bits.
    for found in (
        predict_fn(system, "student")(filled["student"], batch),
        jax.nn.softmax(own["logits"]),
    ):
        np.testing.assert_allclose(np.log(found), np.log(want), rtol=1e-6, atol=1e-5)
    for control in (alpha_0, without_teacher):
        assert control(system).columns == (1,)


def distilclip(**changes):
    config = dataclasses.replace(
        preset_config(ENTRY, "small"), signal=SIGNAL, **changes
    )
    return distilclip_eeg.make_system(config)


def test_distilclip_has_the_switch_too():
    system = distilclip(student_channels=("O2", "Fp1"))
    batch = {"signal": np.zeros((2, 4, 64), np.float32)}

    def stems(key):
        teacher_stage, stage = system.stages
        teacher = teacher_stage.finish(teacher_stage.init(key, batch, {}))
        student = stage.init(key, batch, {"teacher": teacher})
        own = predict_fn(system, "student")(student, batch)
        return [made.params["eeg"]["stem"] for made in (teacher, student)], own

    (teacher, student), own = jax.eval_shape(stems, jax.random.key(0))
    assert teacher["conv_0"]["conv"]["kernel"].shape == (15, 4, 64)
    assert student["conv_0"]["conv"]["kernel"].shape == (15, 2, 64)
    assert own.shape == (2, 2)
    with pytest.raises(InputError, match=r"conv2d takes.* give --eeg\.stem conv1d"):
        distilclip_eeg.make_system(
            DistilClipConfig(
                signal=SignalConfig(n_chans=8, channels=tuple("ABCDEFGH")),
                student_channels=("B",),
                eeg=ConformerConfig(stem="conv2d"),
            )
        )


def test_a_system_that_takes_no_notice_is_refused_and_the_rest_is_said():
    config = RunConfig(signal=SIGNAL, student_channels=("O2", "Fp1"))
    system = toy.make_system()
    with pytest.raises(InputError, match="the system toy does not take it"):
        check_columns(config, {"": system})
    check_columns(config, {"": see_channels(system, (3, 0))})
    check_columns(RunConfig(signal=SIGNAL), {"": system})
    store = tiny_store(2, 4)
    (note,) = channel_notes(config, store)
    assert note.startswith("The student and all models beside it see O2, Fp1; the")
    assert "all 4 channels" in note
    store = tiny_store(2, 4, preprocessing={"montage": "average"})
    assert "--data.montage referential" in channel_notes(config, store)[1]
    assert channel_notes(RunConfig(signal=SIGNAL), store) == ()
