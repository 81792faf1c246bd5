"""Options: dotted changes, presets, and those of one stage."""

import dataclasses
import json

import pytest

from eegkd.config import (
    RunConfig,
    TrainConfig,
    num_steps,
    override,
    preset_config,
    run_config,
    stage_config,
)
from eegkd.errors import InputError
from eegkd.pipeline.folder import from_json, to_json
from eegkd.systems import StageOptions, SystemConfig
from eegkd.systems.entry import find, names
from eegkd.train.optimiser import OptimConfig
from tests.support import toy


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnConfig(SystemConfig):
    """Options of a toy system.

    Attributes:
        width: Width.
    """

    width: int = 4


def test_changes_reach_any_depth_and_leave_the_rest():
    config = RunConfig(train=TrainConfig(epochs=7), seed=3)
    new = override(config, {"train.batch_size": 8, "optim.warmup_fraction": 0.5})
    assert (new.train.batch_size, new.train.epochs, new.seed) == (8, 7, 3)
    assert new.optim.warmup_fraction == 0.5
    whole = override(config, {"train": TrainConfig(epochs=2), "train.workers": 1})
    assert whole.train == TrainConfig(epochs=2, workers=1)
    assert override(config, {}) == config


@pytest.mark.parametrize(
    ("name", "said"),
    [("trian.epochs", r"no option 'trian'.*train"), ("train.epoch", r"option 'epoch'")],
)
def test_an_option_that_is_not_there_is_named(name, said):
    with pytest.raises(InputError, match=said):
        override(RunConfig(), {name: 1})


def test_a_run_has_the_options_of_its_system():
    joined = run_config(OwnConfig)
    assert run_config(OwnConfig) is joined
    assert joined.__doc__ == "Options of a toy system."
    config = joined(width=5, num_folds=2)
    assert (config.width, config.num_folds, config.signal.n_chans) == (5, 2, 19)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 6


@pytest.mark.parametrize("name", names())
def test_every_preset_names_options_that_are_there(name):
    entry = find(name)
    for preset in entry.presets:
        config = preset_config(entry, preset)
        assert isinstance(config, entry.config)
    with pytest.raises(InputError, match=r"no preset 'smal': choose .*small"):
        preset_config(entry, "smal")


def test_what_a_stage_asks_for_comes_first():
    stage = toy.make_system().stages[0]
    train = TrainConfig(epochs=4, teacher_epochs=6, batch_size=8)
    optim = OptimConfig(learning_rate=1e-3, teacher_learning_rate=1e-4)
    config = RunConfig(train=train, optim=optim)

    def of(stage, last):
        found = stage_config(config, stage, last=last)
        return found.train.epochs, found.train.batch_size, found.optim.learning_rate

    assert of(stage, True) == (4, 8, 1e-3)
    assert of(stage, False) == (6, 8, 1e-4)
    own = StageOptions(epochs=2, batch_size=3, learning_rate=0.5)
    for last in (False, True):
        assert of(stage._replace(options=own), last) == (2, 3, 0.5)


def test_updates_are_those_of_the_smallest_fold():
    config = TrainConfig(epochs=3, batch_size=8)
    assert num_steps(config, [40, 17]) == 6
    assert num_steps(dataclasses.replace(config, max_steps=5), [40, 17]) == 5
    with pytest.raises(InputError, match=r"batch_size 8: the smallest fold .* 7"):
        num_steps(config, [40, 7])
    stage = toy.make_system().stages[0]
    own = stage._replace(options=StageOptions(batch_size=8), scope="recording")
    with pytest.raises(InputError, match=r"stage teacher .* of 8 recordings, .* has 7"):
        num_steps(config, [40, 7], own)


@pytest.mark.parametrize("system", names())
def test_options_of_every_preset_come_back_from_json(system):
    entry = find(system)
    for preset in entry.presets:
        config = preset_config(entry, preset)
        text = json.dumps(to_json(config), allow_nan=False)
        assert from_json(type(config), json.loads(text)) == config, preset
