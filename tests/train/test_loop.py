import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eegkd.errors import InputError, Interrupted
from tests.support.toy_runs import NUM_STEPS, ToyLoader, flat, make_run

ROOT = Path(__file__).parents[2]


def total(state):
    return {"total": float(abs(state.params["out"]["kernel"]).sum())}


@pytest.fixture(scope="module")
def toy_run():
    return make_run()


def same(a, b):
    for x, y in zip(flat(a), flat(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("at", [1, 5, 6, 11])
def test_stop_and_resume_gives_the_same_bits(toy_run, tmp_path, at):
    run, _ = toy_run
    options = {"evaluate": total, "eval_every": 3, "monitor": "total", "log_every": 5}
    want, want_history = run(**options)
    done = []
    with pytest.raises(Interrupted, match=f"step {at} of 12, saved in .* again"):
        run(
            checkpoint_dir=tmp_path,
            progress=done.append,
            stop=lambda: done[-1] == at,
            **options,
        )
    got, history = run(checkpoint_dir=tmp_path, **options)
    same(got, want)
    same(history.best, want_history.best)
    assert history.resumed_from == at
    assert history.rows == want_history.rows
    assert (history.best_step, history.best_value) == (
        want_history.best_step,
        want_history.best_value,
    )
    again, history = run(checkpoint_dir=tmp_path, **options)
    same(again, want)
    assert history.resumed_from == NUM_STEPS
    assert history.rows == want_history.rows


def test_resume_on_several_devices(tmp_path):
    run, _ = make_run("shard_map")
    want, _ = run(num_steps=6)
    with pytest.raises(Interrupted):
        run(num_steps=6, checkpoint_dir=tmp_path, stop=lambda: True)
    got, history = run(num_steps=6, checkpoint_dir=tmp_path)
    assert history.resumed_from == 1
    assert got.step.sharding.num_devices == 4
    same(got, want)


def test_rows_are_means_and_best_is_the_best(toy_run):
    run, state = toy_run
    rows, seen, every = [], {}, []

    def evaluate(state):
        seen[int(state.step)] = flat(state)
        return {"score": [0.0, 3.0, 1.0, 3.0][len(seen) - 1]}

    before = flat(state)
    _, history = run(
        evaluate=evaluate,
        eval_every=3,
        monitor="score",
        mode="max",
        log_every=4,
        log=rows.append,
    )
    assert rows == history.rows
    assert [row["step"] for row in rows] == [3, 4, 6, 8, 9, 12, 12]
    assert (history.best_step, history.best_value) == (6, 3.0)
    np.testing.assert_array_equal(
        history.best.params["in"]["kernel"], seen[6][before_index(seen[6], history)]
    )
    for x, y in zip(before, flat(state), strict=True):
        np.testing.assert_array_equal(x, y)
    run(log_every=1, log=every.append)
    for row in (r for r in rows if "loss" in r):
        last = row["step"]
        want = np.mean([r["loss"] for r in every[last - 4 : last]])
        assert row["loss"] == want


def before_index(arrays, history):
    shape = history.best.params["in"]["kernel"].shape
    return next(i for i, x in enumerate(arrays) if x.shape == shape)


def test_without_evaluation_best_is_the_last(toy_run):
    state, history = toy_run[0]()
    same(history.best, state)


def test_nan_names_step_and_term_and_keeps_the_last_good(toy_run, tmp_path):
    run, _ = toy_run
    with pytest.raises(InputError, match=r"step 4 \(in clip, kd\).*last good"):
        run(
            ToyLoader(fault=3), checkpoint_dir=tmp_path, save_every_s=0.0, log_every=100
        )
    assert max(p.name for p in tmp_path.iterdir()) == "00000003"
    got, history = run(checkpoint_dir=tmp_path)
    assert history.resumed_from == 3
    same(got, run()[0])


def test_batches_that_run_out(toy_run):
    with pytest.raises(InputError, match="ran out at step 5 of 12"):
        toy_run[0](ToyLoader(num=5))


def test_other_settings_are_refused(toy_run, tmp_path):
    run, _ = toy_run
    run(checkpoint_dir=tmp_path, config_hash="a")
    with pytest.raises(InputError, match=r"other settings \(a, not b\)"):
        run(checkpoint_dir=tmp_path, config_hash="b")


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        (([1.0, 2.0, 2.0, 2.0], [-1.0, -4.0, -2.0, -3.0]), (9, 2.0)),
        (([2.0, 2.0, 1.0, 2.0], [-1.0, -4.0, 9.0, -1.0]), (3, 2.0)),
        (([np.nan] * 4, [-4.0, -2.0, -3.0, -2.0]), (6, -2.0)),
    ],
    ids=["tie", "first", "undefined"],
)
def test_a_second_metric_decides_ties_and_what_is_undefined(toy_run, scores, best):
    run, _ = toy_run
    rows, seen = [], []

    def evaluate(state):
        seen.append(len(seen))
        return {"auroc": scores[0][seen[-1]], "bce": scores[1][seen[-1]]}

    options = {"monitor": "auroc", "mode": "max", "tie": "bce", "eval_every": 3}
    _, history = run(evaluate=evaluate, log=rows.append, **options)
    assert (history.best_step, history.best_value) == best
    assert all(np.isfinite(row.get("auroc", 0.0)) for row in rows)


def test_monitor_that_is_not_there_or_not_finite(toy_run):
    run, _ = toy_run
    with pytest.raises(ValueError, match="No metric 'loss'; there are total"):
        run(evaluate=total)
    with pytest.raises(InputError, match="'auroc' is nan"):
        run(evaluate=lambda state: {"auroc": float("nan")}, monitor="auroc")


def test_without_a_folder_a_stop_says_that_nothing_is_saved(toy_run):
    with pytest.raises(Interrupted, match="step 1 of 12; nothing was saved"):
        toy_run[0](stop=lambda: True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_restore_the_handlers(toy_run, tmp_path, number):
    run, _ = toy_run
    before = signal.getsignal(number)

    def kick(step):
        if step == 4:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match=str(tmp_path)):
        run(checkpoint_dir=tmp_path, progress=kick)
    assert signal.getsignal(number) is before
    got, history = run(checkpoint_dir=tmp_path)
    assert history.resumed_from == 4
    same(got, run()[0])


def launch(folder, out, num_steps, save_every_s):
    command = [sys.executable, "-m", "tests.support.toy_runs", str(folder), str(out)]
    command += [str(num_steps), str(save_every_s)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kill_9_at_random_then_resume_gives_the_same_bits(tmp_path):
    num_steps, rng = 200, random.Random(0)
    whole = launch(tmp_path / "a", tmp_path / "a.npz", num_steps, 1000)
    whole.communicate(timeout=120)
    assert whole.returncode == 0
    kills = 0
    while not (tmp_path / "b.npz").exists():
        process = launch(tmp_path / "b", tmp_path / "b.npz", num_steps, 0.05)
        budget = rng.randint(2, 60)
        for _, _ in zip(process.stdout, range(budget), strict=False):
            pass
        if kills < 3:
            process.kill()
            kills += 1
        process.communicate(timeout=120)
    assert kills == 3
    a, b = np.load(tmp_path / "a.npz"), np.load(tmp_path / "b.npz")
    assert a.files == b.files
    for name in a.files:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
