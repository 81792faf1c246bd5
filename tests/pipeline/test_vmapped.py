"""Models trained together end as if each had been trained alone."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest

from eegkd.config import TrainConfig
from eegkd.data.windows.folds import make_folds
from eegkd.errors import InputError, Interrupted
from eegkd.pipeline import vmapped as sweep
from eegkd.pipeline.fit import Job, fit
from eegkd.pipeline.run import run_distillation
from eegkd.systems.distilclip_eeg import make_system
from eegkd.train.weights import load_variables
from tests.support.small_nets import compiled_net
from tests.support.stores import tiny_store
from tests.support.tiny_run import tiny_config

STEPS = 6
TRAIN = TrainConfig(epochs=2, batch_size=16, devices=1, save_every_s=0.0)


def with_sweep(config, how, **changes):
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, sweep=how, **changes)
    )


@pytest.fixture(scope="module")
def given():
    """One compiled small net, and the windows of one fold."""
    return compiled_net(tiny_store(), tiny_config("", train=TRAIN), STEPS, num_folds=2)


def make_jobs(folder, data):
    """Two seeds, two learning rates."""
    labels = data.store.student_labels
    return [
        Job("net", seed, folder / f"seed{seed}-{rate}", labels=labels, learning_rate=r)
        for rate, r in (("low", 1e-4), ("high", 3e-3))
        for seed in (0, 1)
    ]


def train(given, folder, log=lambda job, row: None):
    program, data, config = given
    jobs = make_jobs(folder, data)
    sweep.fit_many(program, jobs, data, config, log=log)
    return jobs


def arrays(job):
    variables = load_variables(job.folder / "variables.safetensors")
    return [np.asarray(x) for x in jax.tree.leaves(variables)]


def apart(a, b):
    """Largest difference of two models' variables."""
    pairs = zip(arrays(a), arrays(b), strict=True)
    return max(float(np.max(np.abs(x - y))) for x, y in pairs)


@pytest.mark.slow
def test_each_folder_is_that_of_a_training_of_its_own(given, tmp_path):
    program, data, config = given
    rows = []
    together = train(given, tmp_path / "a", lambda job, row: rows.append((job, row)))
    alone = make_jobs(tmp_path / "b", data)
    for job in alone:
        fit(program, job, data, config, log=lambda row: None)
    for job, its in zip(together, alone, strict=True):
        names = sorted(path.name for path in its.folder.iterdir())
        assert sorted(path.name for path in job.folder.iterdir()) == names
        done, want = (
            json.loads((j.folder / "done.json").read_text()) for j in (job, its)
        )
        assert (done["steps"], done["best_step"]) == (want["steps"], want["best_step"])
        assert done.keys() == want.keys()
        assert apart(job, its) < 0.01 * apart(alone[0], alone[1])
        for part in ("val.npz", "test.npz"):
            prob, right = (np.load(j.folder / part)["prob"] for j in (job, its))
            np.testing.assert_allclose(prob, right, atol=1e-4)
    assert apart(together[0], together[2]) > 100 * apart(together[0], alone[0])
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        job.folder.name for job in together
    }
    seen = {(job.folder.name, row["step"]) for job, row in rows}
    assert {name for name, _ in seen} == {job.folder.name for job in together}
    assert {step for _, step in seen} == {3, 6}


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_to_the_same_bits(given, tmp_path):
    stopped = []

    def stop(job, row):
        if not stopped:  # a second signal would end the process
            stopped.append(os.kill(os.getpid(), signal.SIGTERM))

    whole = train(given, tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"step 3 of {STEPS}"):
        train(given, tmp_path / "cut", stop)
    (place,) = (tmp_path / "cut").iterdir()
    assert place.name.startswith("sweep-")
    jobs = train(given, tmp_path / "cut")
    assert not place.exists()
    for job, its in zip(jobs, whole, strict=True):
        assert apart(job, its) == 0


@pytest.mark.slow
def test_a_kill_while_members_are_written_costs_no_training(
    given, tmp_path, monkeypatch
):
    whole = train(given, tmp_path / "whole")
    conclude, written = sweep.finish, []

    def die_at_the_third(program, job, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(job.folder)
        return conclude(program, job, *rest)

    monkeypatch.setattr(sweep, "finish", die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(given, tmp_path / "cut")
    monkeypatch.setattr(sweep, "finish", conclude)
    before = [(folder / "done.json").stat().st_mtime_ns for folder in written]
    rows = []
    jobs = train(given, tmp_path / "cut", lambda job, row: rows.append(row))
    assert not rows, "members were trained again"
    assert [(f / "done.json").stat().st_mtime_ns for f in written] == before
    for job, its in zip(jobs, whole, strict=True):
        assert apart(job, its) == 0


def test_what_is_trained_together(given, tmp_path):
    program, data, config = given
    other = program._replace(stage="student")
    jobs = make_jobs(tmp_path, data)
    trainings = [(program, job) for job in jobs[:3]] + [(other, jobs[3])]
    assert sweep.groups(trainings, data, with_sweep(config, "sequential")) == []
    assert sweep.groups(trainings, data, with_sweep(config, "auto")) == []
    together = with_sweep(config, "vmap")
    ((one, found),) = sweep.groups(trainings, data, together)
    assert one is program
    assert found == jobs[:3]
    for job in jobs[:2]:
        job.folder.mkdir(parents=True)
        (job.folder / "done.json").touch()
    assert sweep.groups(trainings, data, together) == []
    # A kill between the last two members that a sweep writes: its checkpoint is there.
    sweep._folder(jobs[:3]).mkdir()
    ((_, found),) = sweep.groups(trainings, data, together)
    assert found == jobs[:3]
    sweep._folder(jobs[:3]).rmdir()
    for options, text in (
        ({"runner": "pmap"}, "--train.runner pmap shares its batches"),
        ({"fully_sharded": True}, "--train.fully_sharded cut it"),
    ):
        with pytest.raises(InputError, match=f"--train.sweep vmap .* {text}"):
            sweep.groups(trainings, data, with_sweep(config, "vmap", **options))
        auto = with_sweep(config, "auto", **options)
        assert sweep.groups(trainings, data, auto) == []


class Chip:
    """An accelerator whose memory holds three small nets."""

    platform = "gpu"

    def __init__(self, one):
        self.one = one

    def memory_stats(self):
        return {"bytes_limit": int(3.5 * self.one / 0.8)}


def test_what_does_not_fit_is_divided_evenly(given, tmp_path, monkeypatch):
    program, data, config = given
    monkeypatch.setattr(sweep, "member_bytes", lambda *args: 2**20)
    sweep_on_chip = program.many().sweep._replace(devices=[Chip(2**20)])
    many = program.many()._replace(sweep=sweep_on_chip)
    fitting = program._replace(many=lambda: many)
    jobs, said = make_jobs(tmp_path, data), []
    trainings = [(fitting, job) for job in jobs]
    found = sweep.groups(trainings, data, with_sweep(config, "auto"), said.append)
    assert [group for _, group in found] == [jobs[:2], jobs[2:]]
    assert said == [
        "net: 4 models of 1 MiB each, devices of 4 MiB: up to 3 are trained together."
    ]


@pytest.mark.nightly
def test_a_run_with_and_without_a_sweep_says_the_same(tmp_path):
    store = tiny_store()
    rows = ("alpha_0", "no_teacher", "shuffled_teacher", "small_net")
    found = {}
    for how in ("sequential", "vmap"):
        config = tiny_config(
            tmp_path / how, rows=rows, num_seeds=2, train=TRAIN, num_folds=2
        )
        config = with_sweep(config, how)
        folds = make_folds(store, config.split, num_folds=2)[:1]
        found[how] = run_distillation(make_system, store, folds, config)
    files = {
        how: {
            path.relative_to(tmp_path / how)
            for path in (tmp_path / how / "fold0").rglob("*")
        }
        for how in found
    }
    assert files["vmap"] == files["sequential"]
    for path in sorted(files["vmap"]):
        if path.name in ("val.npz", "test.npz"):
            prob, want = (np.load(tmp_path / how / path)["prob"] for how in found)
            np.testing.assert_allclose(prob, want, atol=1e-3, err_msg=str(path))
    for row, want in zip(found["vmap"], found["sequential"], strict=True):
        assert (row["model"], row["seeds"]) == (want["model"], want["seeds"])
        assert row["mean"] == pytest.approx(want["mean"], abs=0.02)
