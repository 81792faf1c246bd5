"""Small models side by side: as alone, and stoppable."""

import dataclasses
import threading

import jax
import numpy as np
import pytest

from eegkd.config import RunConfig, TrainConfig
from eegkd.errors import InputError, Interrupted
from eegkd.pipeline import threads
from eegkd.pipeline.finished import is_finished
from eegkd.pipeline.fit import Job, fit
from eegkd.pipeline.threads import fit_threads, threads_at_once
from eegkd.train.weights import load_variables
from tests.support import tiny_run
from tests.support.small_nets import compiled_net

STEPS = 6


@pytest.fixture(scope="module")
def setting():
    train = TrainConfig(batch_size=16, devices=1, sweep="threads")
    return compiled_net(
        tiny_run.tiny_store(), RunConfig(train=train), STEPS, num_folds=3
    )


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(threads, "num_cores", lambda: 2)


def jobs_in(folder, data, num=3):
    labels = data.store.student_labels
    return [Job("small_net", i, folder / f"seed{i}", labels=labels) for i in range(num)]


@pytest.mark.slow
def test_every_model_is_what_it_would_be_alone(setting, tmp_path):
    program, data, config = setting
    rows, seen, names = [], [], set()

    def log(job, row):
        names.add(threading.current_thread().name)
        rows.append((job.seed, row["step"]))

    jobs = jobs_in(tmp_path / "beside", data)
    trainings = [(program, job) for job in jobs]
    trained = fit_threads(trainings, data, config, log=log, progress=seen.append)
    assert trained == jobs
    assert len(names) == 2
    assert seen[-1] == max(seen) == 3 * STEPS
    assert {seed for seed, step in rows if step == STEPS} == {0, 1, 2}
    for job, alone in zip(jobs, jobs_in(tmp_path / "alone", data), strict=True):
        fit(program, alone, data, config, log=lambda row: None)
        for file in ("variables.safetensors", "val.npz", "test.npz"):
            if file.endswith("npz"):
                a, b = (np.load(j.folder / file) for j in (job, alone))
                np.testing.assert_array_equal(a["prob"], b["prob"])
            else:
                assert (job.folder / file).read_bytes() == (
                    alone.folder / file
                ).read_bytes()


def test_finished_models_stay_as_they_are(setting, tmp_path):
    program, data, config = setting
    jobs = jobs_in(tmp_path, data)
    fit(program, jobs[0], data, config, log=lambda row: None)
    before = (jobs[0].folder / "done.json").stat().st_mtime_ns
    options = {"log": lambda job, row: None, "progress": lambda done: None}
    left = fit_threads([(program, j) for j in jobs], data, config, **options)
    assert left == jobs[1:]
    assert (jobs[0].folder / "done.json").stat().st_mtime_ns == before
    assert fit_threads([(program, j) for j in jobs], data, config, **options) == []


def test_a_failure_stops_the_others_after_they_have_saved(setting, tmp_path):
    program, data, config = setting
    jobs = jobs_in(tmp_path, data)

    def log(job, row):
        if job.seed == 0:
            raise InputError("The disk of the log is full.")

    with pytest.raises(InputError, match="log is full"):
        fit_threads(
            [(program, j) for j in jobs],
            data,
            config,
            log=log,
            progress=lambda done: None,
        )
    assert not is_finished(jobs[0].folder)


def test_a_signal_stops_all_and_the_next_call_ends_the_same(
    setting, tmp_path, monkeypatch
):
    program, data, config = setting
    jobs = jobs_in(tmp_path / "stopped", data)
    trainings = [(program, job) for job in jobs]

    class Signalled:
        def __enter__(self):
            return lambda: True

        def __exit__(self, *error):
            return None

    quiet = {"log": lambda job, row: None, "progress": lambda done: None}
    with monkeypatch.context() as patch:
        patch.setattr(threads, "watch_signals", Signalled)
        patch.setattr(threads, "_POLL_S", 0.0)
        with pytest.raises(Interrupted):
            fit_threads(trainings, data, config, **quiet)
    assert not all(is_finished(job.folder) for job in jobs)
    fit_threads(trainings, data, config, **quiet)
    for job, alone in zip(jobs, jobs_in(tmp_path / "alone", data), strict=True):
        if not is_finished(job.folder):  # the only one left is no company
            fit(program, job, data, config, log=lambda row: None)
        fit(program, alone, data, config, log=lambda row: None)
        a, b = (
            load_variables(j.folder / "variables.safetensors") for j in (job, alone)
        )
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y)


def test_large_models_and_other_ways_train_alone(setting, monkeypatch):
    program, data, config = setting

    def number(sweep, **changes):
        train = dataclasses.replace(config.train, sweep=sweep)
        given = dataclasses.replace(config, train=train)
        return threads_at_once(program._replace(**changes), {}, given)

    assert number("threads") == number("auto") == 2
    assert number("sequential") == number("vmap") == 1
    many = program.runner._replace(num_devices=4)
    assert number("threads", runner=many) == 1
    monkeypatch.setattr(threads, "LARGE", 10)
    assert number("auto") == 1
    assert number("threads") == 2
