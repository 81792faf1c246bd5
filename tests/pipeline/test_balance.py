"""How `--train.balance` reaches the programs of a run."""

import dataclasses
import json

import numpy as np
import pytest

from eegkd.bench.setup import prepare_bench
from eegkd.config import TrainConfig
from eegkd.data.windows.folds import make_folds
from eegkd.errors import InputError
from eegkd.losses.balance import make_balancer
from eegkd.pipeline.compiled import make_program
from eegkd.pipeline.fit import Job, start
from eegkd.pipeline.folds import fold_data
from eegkd.systems import get_stage
from eegkd.systems.distilclip_eeg import make_system
from eegkd.systems.signal import signal_of
from tests.support import tiny_run

RULES = ("uncertainty", "gradnorm")


def setup(tmp_path, balance):
    train = TrainConfig(epochs=2, batch_size=16, balance=balance)
    store = tiny_run.tiny_store()
    config = tiny_run.tiny_config(tmp_path / "run", train=train)
    config = dataclasses.replace(config, signal=signal_of(store))
    return config, make_system(config), store


@pytest.mark.parametrize("rule", RULES)
def test_stages_of_several_terms_are_balanced(tmp_path, rule):
    _, system, _ = setup(tmp_path, rule)
    teacher, student = (get_stage(system, name) for name in ("teacher", "student"))
    assert make_balancer(rule, teacher.terms) is None
    assert make_balancer("fixed", student.terms) is None
    assert make_balancer(rule, student.terms).needs_grad_norms == (rule == "gradnorm")


def test_a_benchmark_of_parts_refuses_it(tmp_path):
    config, system, store = setup(tmp_path, "gradnorm")
    with pytest.raises(InputError, match=r"leave out --train\.balance gradnorm"):
        prepare_bench(system, system.stages[-1], config, store, None, online=False)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_a_training_scales_its_terms(tmp_path, rule):
    config, system, store = setup(tmp_path, rule)
    fold = make_folds(store, "kfold", num_folds=2)[0]
    data = fold_data(store, fold)
    sizes = [2 * config.train.batch_size]  # 4 updates in 2 epochs
    first = make_program(system, "teacher", config, sizes)
    begun = start(first, Job("teacher", 0, tmp_path), data, config)
    teacher = first.finish(begun.state.variables({}))
    program = make_program(system, "student", config, sizes)
    job = Job("student", 0, tmp_path, upstream={"teacher": teacher})
    member = start(program, job, data, config)
    place, put = program.runner.place, program.runner.put
    state, frozen, given = map(place, (member.state, member.frozen, member.upstream))
    scales = []
    for _, batch in zip(range(4), member.loader, strict=False):
        state, metrics = program.runner.step(state, frozen, given, put(batch))
        part = {k: float(metrics[f"weighted/{k}"] / metrics[f"raw/{k}"])
                for k in ("l1", "kd")}  # fmt: skip
        scales.append([part["l1"] / 0.5, part["kd"] / 0.5])
    member.loader.close()
    np.testing.assert_allclose(scales[0], 1, rtol=1e-5)
    assert np.abs(np.array(scales[-1]) - 1).min() > 1e-3
    if rule == "gradnorm":
        np.testing.assert_allclose(np.sum(scales, axis=1), 2, rtol=1e-5)


@pytest.mark.nightly
def test_a_run_with_controls_keeps_the_choice(tmp_path):
    train = TrainConfig(epochs=2, batch_size=16, balance="uncertainty")
    rows = tiny_run.run(tmp_path / "run", rows=("alpha_0", "no_teacher"), train=train)
    assert {row["model"] for row in rows} >= {"student", "alpha_0", "no_teacher"}
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["run"]["train"]["balance"] == "uncertainty"
    log = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    scales = {"student": [], "no_teacher": []}
    for row in map(json.loads, log):
        if row["model"] in scales and "weighted/l1" in row:
            weight = {"student": 0.5, "no_teacher": 1.0}[row["model"]]
            scale = row["weighted/l1"] / row["raw/l1"] / weight
            scales[row["model"]].append(scale)
    assert scales["student"]
    assert max(abs(s - 1) for s in scales["student"]) > 1e-3
    np.testing.assert_allclose(scales["no_teacher"], 1, rtol=1e-5)
