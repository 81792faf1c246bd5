import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.bench.bench import run_bench, split_step
from eegkd.bench.nested import (
    Choice,
    half_square,
    make_chain,
    with_stand_ins,
    without_slots,
)
from eegkd.bench.setup import draw_store
from eegkd.cli import main
from eegkd.commands.bench import dtype_of, with_dtype
from eegkd.errors import InputError
from eegkd.host.process import peak_resident
from eegkd.systems import SignalConfig, distilclip_eeg
from eegkd.train.optimiser import make_optimiser
from eegkd.train.state import init_state
from tests.support.presets import TINY

SIGNAL = SignalConfig(n_chans=3, n_times=64, rate=64.0)
CONFIG = dataclasses.replace(
    TINY,
    signal=SIGNAL,
    text=dataclasses.replace(TINY.text, source="none"),
    train=dataclasses.replace(TINY.train, batch_size=8, workers=0),
)
SYSTEM = distilclip_eeg.make_system(CONFIG)


def test_parts_are_medians_of_differences_and_the_rest_is_other():
    turns = [[1.0, 3.0, 4.0], [2.0, 4.0, 9.0], [1.5, 2.0, 5.0]]
    step, rows = split_step(["model", "loss", "host"], turns)
    assert step == 5.0
    middle = {"model": 1.5, "loss": 2.0, "host": 3.0, "other": 5.0 - 6.5}
    assert {row["part"]: row["ms"] for row in rows} == pytest.approx(
        {name: 1000 * value for name, value in middle.items()}
    )
    assert sum(row["ms"] for row in rows) == pytest.approx(1000 * step)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert rows[2]["spread_ms"] == pytest.approx(500 * (4.0 - 2.0))


def test_equal_turns_leave_nothing():
    _, rows = split_step(["a", "b"], [[0.1, 0.3]] * 4)
    assert rows[-1] == {
        "part": "other",
        "ms": pytest.approx(0, abs=1e-9),
        "spread_ms": 0,
        "share": pytest.approx(0, abs=1e-9),
    }


def test_stand_ins_take_the_place_of_terms_one_by_one():
    stage = distilclip_eeg.make_system(
        dataclasses.replace(CONFIG, text=TINY.text)
    ).stages[1]
    names = [[t.name for t in with_stand_ins(stage, n).terms] for n in range(3)]
    assert names == [
        [
            "stand_in/student.projected",
            "stand_in/student.text",
            "stand_in/student.logit_scale",
            "stand_in/student.kd_logits",
        ],
        ["l1", "stand_in/student.kd_logits"],
        ["l1", "kd"],
    ]


@pytest.mark.parametrize("shape", [(), (4,), (4, 3), (4, 3, 2)])
def test_a_stand_in_has_a_gradient_that_is_not_constant(shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    values = half_square(x)
    rows = np.asarray(x).reshape(shape[0] if shape else 1, -1)
    np.testing.assert_allclose(values, 0.5 * (rows**2).mean(axis=1), rtol=1e-6)
    gradient = jax.grad(lambda x: half_square(x).sum())(x)
    np.testing.assert_allclose(gradient, x / rows.shape[1], rtol=1e-6)


def test_the_chain_goes_from_the_model_to_the_whole_step():
    devices = jax.devices()
    tx = make_optimiser(CONFIG.optim, 10)

    def parts(name, num, **options):
        choice = Choice(name, devices[:num])
        return [n.part for n in make_chain(SYSTEM, "student", tx, choice, **options)]

    base = ["student", "loss/ce", "loss/kd", "optimiser"]
    assert parts("single", 1, online=False) == base
    assert parts("single", 1, online=True) == [*base, "teacher"]
    for name in ("pmap", "shard_map", "mesh"):
        want = [*base, "collectives", "teacher"]
        assert parts(name, 2, online=True) == want


def test_programs_without_an_optimiser_keep_no_slots():
    stage = SYSTEM.stages[0]
    tx = make_optimiser(CONFIG.optim, 10)
    batch = {"signal": np.zeros((2, 3, 64), np.float32)}
    variables = jax.eval_shape(stage.init, jax.random.key(0), batch, {})
    state = jax.eval_shape(
        lambda v: init_state(stage, v, tx, jax.random.key(0)), variables
    )
    slim = without_slots(state)
    assert len(jax.tree.leaves(slim.opt_state)) == 0
    assert slim.weights == {}
    assert slim.params is state.params


def test_drawn_windows_have_the_signal_s_shape():
    store = draw_store(SIGNAL, 20)
    assert store.signal.shape == (20, 3, 64)
    assert store.classes == list(SIGNAL.classes) or store.classes == SIGNAL.classes
    assert set(store.labels) == {0, 1}


def test_the_dtype_reaches_every_model_that_has_one():
    assert dtype_of(CONFIG) == "float32"
    changed = with_dtype(CONFIG, "bfloat16")
    assert changed.eeg.dtype == dtype_of(changed) == "bfloat16"
    assert with_dtype(CONFIG, "auto") is CONFIG
    with pytest.raises(InputError, match="no --dtype"):
        with_dtype(SIGNAL, "bfloat16")


def test_memory_is_at_least_what_is_held():
    held = np.ones(8 * 2**20)
    assert peak_resident() > held.nbytes


@pytest.fixture(scope="module")
def account():
    said, done = [], []
    choice = Choice("shard_map", jax.devices()[:2])
    result = run_bench(
        SYSTEM,
        "student",
        CONFIG,
        draw_store(SIGNAL, 32),
        choice,
        online=True,
        repeats=2,
        say=said.append,
        progress=lambda *numbers: done.append(numbers),
    )
    return result, said, done


@pytest.mark.slow
def test_a_bench_accounts_for_a_step(account):
    result, said, done = account
    names = [row["part"] for row in result["parts"]]
    assert names == [
        *("student", "loss/ce", "loss/kd", "optimiser", "collectives", "teacher"),
        *("host", "data wait", "other"),
    ]
    assert sum(r["ms"] for r in result["parts"]) == pytest.approx(result["step_ms"])
    assert result["windows_per_s"] == pytest.approx(8000 / result["step_ms"])
    assert result["flops_per_s"] == pytest.approx(
        1000 * result["flops_step"] / result["step_ms"]
    )
    assert result["share_of_peak"] > 0
    assert "measured on this CPU" in result["peak_source"]
    assert result["memory"]["host_peak_bytes"] > 2**20
    assert result["memory"]["device_peak_bytes"] is None
    assert result["compile_s"] > 0
    assert json.loads(json.dumps(result)) == result
    assert "6 programs, 2 turns: about" in said[0]
    assert done[-1] == (7, 7)


def test_a_bench_refuses_what_it_cannot_measure():
    choice, store = Choice("single", jax.devices()[:1]), draw_store(SIGNAL, 4)
    with pytest.raises(InputError, match="has 4 windows, a batch 8"):
        run_bench(SYSTEM, "student", CONFIG, store, choice)
    with pytest.raises(InputError, match="--repeats"):
        run_bench(SYSTEM, "student", CONFIG, store, choice, repeats=0)
    untrained = SYSTEM._replace(
        stages=(SYSTEM.stages[0]._replace(terms=()), SYSTEM.stages[1])
    )
    with pytest.raises(InputError, match="not trained"):
        run_bench(untrained, "teacher", CONFIG, store, choice)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stage", "vision"], "choose teacher, student"),
        (["--batch", "-2"], "0 or more"),
        (["--json", "nowhere/at/all.json"], "no such folder"),
        (["--preset", "huge"], "no preset 'huge'"),
        (["--repeats", "0"], "--repeats is at least 1"),
        (["--runner", "single", "--devices", "2"], "uses one device, not 2"),
    ],
)
def test_a_wrong_option_is_one_message(args, message, capsys):
    tiny = ["--text.source", "none", "--signal.n_times", "64", "--devices", "1"]
    assert main(["bench", "distilclip_eeg", *tiny, *args]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_verb_measures_prints_and_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    file = tmp_path / "bench.json"
    args = ["bench", "distilclip_eeg", "--preset", "quickstart", "--json", str(file)]
    args += ["--text.source", "none", "--signal.n_times", "64", "--signal.n_chans", "3"]
    args += ["--eeg.dim", "16", "--eeg.depth", "1", "--eeg.num_heads", "2"]
    args += ["--eeg.stem_kernels", "7", "3", "--eeg.kernel", "5", "--devices", "1"]
    args += ["--batch", "4", "--repeats", "1", "--stage", "teacher"]
    assert main(args) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("part of a step", "data wait", "other", "windows/s", "Compiled in"):
        assert words in said
    account = json.loads(file.read_text())
    assert account["stage"] == "teacher"
    assert account["earlier_stages"] == "none"
    assert account["preset"] == "quickstart"
