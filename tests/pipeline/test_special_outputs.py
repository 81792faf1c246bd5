"""Outputs of stages in parts and of whole recordings, for whoever reads them."""

import numpy as np
import pytest

from eegkd.config import TrainConfig
from eegkd.data.windows.folds import make_folds
from eegkd.errors import InputError
from eegkd.pipeline.compiled import compile_programs, part_sizes
from eegkd.pipeline.folds import fold_data, part_of_rows
from eegkd.pipeline.special_outputs import stage_outputs
from eegkd.systems import StageOptions
from tests.support import toy
from tests.support.plugin.eegkd_cascade import cascade
from tests.support.presets import TINY
from tests.support.stores import toy_store

STORE = toy.make_store()
FOLDS = make_folds(STORE, num_folds=2)
DATA = fold_data(STORE, FOLDS[0])


def crossfit(**options):
    system = toy.make_system()
    teacher, student = system.stages
    teacher = teacher._replace(options=StageOptions(crossfit=2, **options))
    return system._replace(stages=(teacher, student))


def test_a_training_window_is_described_by_who_has_not_seen_it():
    system = crossfit()
    teacher, student = system.stages
    drawn = [toy.make_variables(system, seed)["teacher"] for seed in (0, 10, 20)]
    parts = {"teacher": {"1": drawn[1], "2": drawn[2]}}
    upstream = {"teacher": drawn[0]}
    found = stage_outputs(system, student, upstream, parts, DATA, seed=0)
    owner = part_of_rows(DATA, 2, 0)
    assert set(owner) == {0, 1, 2}
    batch = {"signal": STORE.signal, "label": STORE.labels}
    own = [teacher.forward(v, batch, {}, train=False, key=None)[0] for v in drawn]
    wanted = np.stack([x["logits"] for x in own])[owner, np.arange(len(STORE))]
    assert list(found) == ["teacher"]
    assert list(found["teacher"]) == ["logits"]
    np.testing.assert_allclose(found["teacher"]["logits"], wanted, rtol=1e-5)


def test_recordings_are_read_whole_and_given_back_by_window():
    store = toy_store(num=60)
    data = fold_data(store, make_folds(store, num_folds=2)[0])
    lens, tower, night, _, student = cascade.make_system(
        cascade.CascadeConfig(width=3)
    ).stages
    system = toy.make_system()._replace(stages=(lens, tower, night, student))
    w = np.random.default_rng(0).normal(size=8).astype(np.float32)
    upstream = {
        "lens": None,
        "tower": cascade.Variables({"w": w[:2, None]}, {}, {}),
        "night": cascade.Variables({"w": w[2:6].reshape(2, 2)}, {}, {}),
    }
    seen = student._replace(terms=(), needs=("night.logits",))
    found = stage_outputs(system, seen, upstream, {}, data, seed=0)["night"]["logits"]
    embed = np.log(np.mean(store.signal**2, axis=-1) + 1e-3) @ w[:2, None]
    names = store.index["recording_id"]
    mean = np.stack([embed[names == name].mean(axis=0) for name in names])
    wanted = np.concatenate([embed, embed - mean], 1) @ w[2:6].reshape(2, 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"stage student reads tower .*cache.given"):
        stage_outputs(system, seen, {"night": None}, {}, data, seed=0)


def test_a_part_that_cannot_fill_a_batch_is_refused_at_once():
    system, config = crossfit(batch_size=16), TINY
    sizes = [part_sizes(system.stages[0], STORE, fold, 0) for fold in FOLDS]
    assert all(sum(x) == len(f.train) for x, f in zip(sizes, FOLDS, strict=True))
    fewest = min(map(min, sizes))
    assert fewest < 16 <= min(len(fold.train) for fold in FOLDS)
    wanted = rf"stage teacher .* of 16 windows, .* has {fewest}"
    with pytest.raises(InputError, match=wanted):
        compile_programs({"": system}, STORE, FOLDS, config)
    assert config.train == TrainConfig(epochs=1, batch_size=8)
