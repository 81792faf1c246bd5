"""Example batches are as real ones, and what a stage reads has the shapes it says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.config import preset_config
from eegkd.errors import InputError
from eegkd.pipeline.inference import batch_maker
from eegkd.systems import Stage, StageOptions, System, keep_all
from eegkd.systems.batches import (
    as_recordings,
    example_batch,
    prepare_fn,
    shapes_of,
    stage_shapes,
    start_stage,
)
from eegkd.systems.entry import find
from eegkd.systems.loaded import loaded_weights
from eegkd.systems.outputs import needs_outputs, output_shapes, wanted_outputs
from eegkd.systems.signal import SignalConfig, signal_of
from eegkd.typing import Variables
from tests.support import toy
from tests.support.plugin.eegkd_cascade.cascade import CascadeConfig
from tests.support.plugin.eegkd_cascade.cascade import make_system as make_cascade
from tests.support.stores import tiny_store, toy_store

SIGNAL = SignalConfig(n_chans=2, n_times=50, rate=50.0)
CASCADE = make_cascade(CascadeConfig(signal=SIGNAL))


def built_in(name, store):
    entry = find(name)
    config = preset_config(entry, "small")
    return entry.make_system(
        type(config)(**vars(config) | {"signal": signal_of(store)})
    )


@pytest.mark.parametrize(
    ("make", "store"),
    [
        (functools.partial(built_in, "distilclip_eeg"), tiny_store(3, 6)),
        (functools.partial(built_in, "dlink"), tiny_store(3, 6, rate=200.0, t=400)),
        (lambda store: CASCADE, toy_store()),
    ],
    ids=["distilclip_eeg", "dlink", "cascade"],
)
def test_an_example_is_as_a_real_batch(make, store):
    system = make(store)
    for stages in (None, [system.stages[0].name], [system.stages[-1].name]):
        real = batch_maker(system, store, stages=stages)(np.arange(5))
        example = example_batch(system, signal_of(store), 5, stages)
        assert shapes_of(example) == shapes_of(real)


def test_an_example_has_a_label_per_class_where_there_are_several():
    signal = SignalConfig(classes=("a", "b", "c"), multilabel=True)
    label = example_batch(toy.make_system(), signal, 2)["label"]
    assert (label.shape, label.dtype) == ((2, 3), np.float32)


def test_what_one_stage_reads_is_prepared_for_it_alone():
    ids = example_batch(CASCADE, SIGNAL, 3)["student"]["ids"]
    assert (ids.shape, ids.dtype) == ((3, 3), np.int32)
    assert "student" not in example_batch(CASCADE, SIGNAL, 3, ["tower"])
    assert prepare_fn(toy.make_system()) is None


def change(batch, stages, *, num, nested=False):
    if nested:
        return {**batch, "student": {"ids": np.zeros((num, 2))}}
    return {name: np.repeat(value[:1], num, axis=0) for name, value in batch.items()}


@pytest.mark.parametrize(
    ("nested", "said"),
    [(False, r"label of shape \[4\]"), (True, r"student.ids of shape \[4, 2\]")],
)
def test_a_batch_of_another_length_is_refused(nested, said):
    prepare = functools.partial(change, num=4, nested=nested)
    system = toy.make_system()._replace(prepare=prepare)
    store = toy_store()
    with pytest.raises(InputError, match=f"prepare of toy returns {said} for 3 exampl"):
        batch_maker(system, store)(np.arange(3))
    assert len(batch_maker(system, store)(np.arange(4))["label"]) == 4


def test_recordings_are_windows_with_another_axis():
    batch = as_recordings(example_batch(CASCADE, SIGNAL, 3), 4)
    assert batch["student"]["ids"].shape == (3, 4, 3)
    assert batch["mask"].shape == (3, 4)
    assert batch["mask"].all()


def test_who_reads_what_a_cache_alone_can_give():
    alone = [stage.name for stage in CASCADE.stages if needs_outputs(CASCADE, stage)]
    assert alone == ["night", "student"]
    read = ["night.logits", "rater.logits", "tower.embed"]
    assert sorted(wanted_outputs(CASCADE, CASCADE.stages[-1])) == read
    teacher, student = toy.make_system().stages
    system = System("toy", ("signal",), keep_all, (teacher, student))
    assert not needs_outputs(system, student)
    parts = teacher._replace(options=StageOptions(crossfit=2))
    assert needs_outputs(system._replace(stages=(parts, student)), student)


def test_a_stage_between_hides_no_recordings():
    """One that is computed from what needs a cache needs it too."""
    night = CASCADE.stages[2]
    between = toy.make_system().stages[0]
    between = between._replace(name="teacher", needs=("night.logits",))
    student = toy.make_system().stages[1]
    stages = (*CASCADE.stages[:2], night, between, student)
    assert needs_outputs(System("toy", ("signal",), keep_all, stages), student)


def test_outputs_have_the_axes_of_their_reader():
    shapes = {n: x.finished for n, x in stage_shapes(CASCADE, SIGNAL).items()}
    by_name = {stage.name: stage for stage in CASCADE.stages}

    def read(name, size):
        found = output_shapes(CASCADE, by_name[name], shapes, SIGNAL, size)
        return {
            f"{s}.{n}": x.shape for s, group in found.items() for n, x in group.items()
        }

    assert read("tower", 3) == {"lens.features": (3, 6)}
    assert read("night", 3) == {"tower.embed": (3, 2, 6)}
    assert read("student", 3) == {"night.logits": (3, 2), "rater.logits": (3, 2)}
    assert read("rater", 3) == {}


def test_loaded_weights_reach_init_where_a_stage_has_them(tmp_path):
    def init(key, batch, earlier, loaded):
        return Variables({}, {"loaded": jax.tree.map(jnp.negative, loaded)}, {})

    weights = {"w": np.arange(3.0, dtype=np.float32)}
    load = loaded_weights("model", str(tmp_path), weights)
    stage = Stage("lens", init, toy.forward, load=load)
    system = System("toy", ("signal",), keep_all, (stage,))
    found = start_stage(system, stage, SIGNAL, {})
    np.testing.assert_array_equal(found.frozen["loaded"]["w"], -weights["w"])
    traced = stage_shapes(system, SIGNAL)["lens"].trained
    assert shapes_of(found) == traced
