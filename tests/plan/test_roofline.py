import dataclasses
import json

import numpy as np
import pytest

from eegkd.cli import main
from eegkd.errors import InputError
from eegkd.ops.costs import Costs
from eegkd.plan.account import DEVICE_COUNTS, make_plan
from eegkd.plan.chips import CHIPS, chip_of, get_chip, matmul_rate
from eegkd.plan.costs import interpolate, trace_stage
from eegkd.plan.roofline import sent_bytes, step_roofline
from eegkd.systems import SignalConfig, distilclip_eeg
from eegkd.systems.batches import stage_shapes
from tests.support.presets import TINY

SIGNAL = SignalConfig(n_chans=3, n_times=128, rate=64.0)
CONFIG = dataclasses.replace(TINY, signal=SIGNAL)
COSTS = Costs(
    flops=8 * 10**12,
    half_flops=6 * 10**12,
    traffic=10**10,
    reduced=4 * 10**8,
    gathered=10**6,
)
CHIP = CHIPS["v5e"]._replace(
    half_flops=1e14,
    single_flops=5e13,
    memory_rate=1e12,
    link_rate=1e11,
    domain=4,
    network_rate=1e10,
)


@pytest.fixture(scope="module")
def plan():
    return make_plan(
        distilclip_eeg.make_system,
        CONFIG,
        chip=CHIP,
        device_counts=DEVICE_COUNTS,
        num_windows=10,
    )


def ring_by_hand(size, num):
    """Each of `num` devices sends `size / num` in 2 (num - 1) rounds."""
    return sum(size / num for _ in range(2 * (num - 1)))


def test_every_chip_has_figures_that_agree_and_a_source():
    assert set(CHIPS) == {"A100", "H100", "H200", "v5e", "v5p", "v6e"}
    for chip in CHIPS.values():
        assert 1e14 < chip.single_flops <= chip.half_flops < 2e15
        assert 1e10 < chip.memory_bytes < 2e11
        assert 5e11 < chip.memory_rate < 1e13
        assert chip.network_rate < chip.link_rate < chip.memory_rate
        assert "data sheet" in chip.source or "documentation" in chip.source
    assert CHIPS["H200"]._replace(name="H100").half_flops == CHIPS["H100"].half_flops


@pytest.mark.parametrize("name", ["v5e", "TPU v5e", "tpu-v5e", "V5E", "TPU_v5e"])
def test_a_chip_is_found_in_any_spelling(name):
    assert get_chip(name).name == "v5e"


def test_an_unknown_chip_lists_the_known():
    with pytest.raises(InputError, match="A100, H100, H200, v5e, v5p, v6e"):
        get_chip("B200")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
    ],
)
def test_devices_are_recognised(kind, name):
    assert chip_of(kind).name == name


def test_other_devices_are_not():
    assert chip_of("TPU v4") is None
    assert chip_of("cpu") is None


def test_this_machine_has_a_rate():
    assert 1e8 < matmul_rate("float32", size=256, repeats=2) < 1e14


def test_one_device_computes_or_reads():
    least = step_roofline(CHIP, COSTS, 1)
    assert least.compute_s == pytest.approx(6e12 / 1e14 + 2e12 / 5e13)
    assert least.memory_s == pytest.approx(1e-2)
    assert least.interconnect_s == 0
    assert least.step_s == least.compute_s
    assert least.bound == "compute"
    slow = step_roofline(CHIP._replace(memory_rate=1e10), COSTS, 1)
    assert (slow.bound, slow.step_s) == ("memory", pytest.approx(1.0))


def test_inside_a_domain_a_ring_sums_and_a_gather_sends_to_all():
    costs = COSTS._replace(gathered=0)
    for num in (2, 3, 4):
        got = step_roofline(CHIP, costs, num).interconnect_s
        assert got == pytest.approx(ring_by_hand(4e8, num) / 1e11)
        assert sent_bytes(costs, num) == pytest.approx(ring_by_hand(4e8, num), abs=1)
    costs = COSTS._replace(reduced=0)
    assert step_roofline(CHIP, costs, 4).interconnect_s == pytest.approx(3e6 / 1e11)
    assert sent_bytes(costs, 4) == 3 * 10**6


def test_between_domains_each_chip_carries_its_share():
    costs = COSTS._replace(gathered=0)
    got = step_roofline(CHIP, costs, 16).interconnect_s
    inside, between = ring_by_hand(4e8, 4) / 1e11, ring_by_hand(1e8, 4) / 1e10
    assert got == pytest.approx(inside + between)
    gather = step_roofline(CHIP, COSTS._replace(reduced=0), 16).interconnect_s
    assert gather == pytest.approx(3e6 / 1e10 + 3 * 4e6 / 1e11)


def test_cut_parameters_send_half_as_much_again():
    costs = COSTS._replace(gathered=0)
    whole = sent_bytes(costs, 4)
    cut = sent_bytes(costs, 4, sharded_bytes=costs.reduced)
    assert cut == pytest.approx(1.5 * whole)
    time = step_roofline(CHIP, costs, 4, sharded_bytes=costs.reduced).interconnect_s
    assert time == pytest.approx(cut / 1e11)


@pytest.mark.slow
def test_costs_between_two_batches_are_those_of_a_trace():
    # Without text and its contrastive loss, from 4 windows on (below, attention takes
    # another form), all costs are straight lines.
    config = dataclasses.replace(
        CONFIG, text=dataclasses.replace(CONFIG.text, source="none")
    )
    system = distilclip_eeg.make_system(config)
    shapes = stage_shapes(system, SIGNAL)

    def trace(size):
        return trace_stage(
            system,
            system.stages[1],
            shapes,
            config,
            SIGNAL,
            batch_size=size,
            num_devices=2,
        )

    want, got = trace(8), interpolate((4, trace(4)), (16, trace(16)), 8)
    assert got.online is not None
    for a, b in ((got.step, want.step), (got.online, want.online)):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(got[2:], want[2:], rtol=1e-6)


@pytest.mark.slow
def test_a_table_goes_to_1024_devices(plan):
    rows = [r for r in plan["roofline"]["student"] if r["earlier_stages"] == "online"]
    assert [row["devices"] for row in rows] == list(DEVICE_COUNTS)
    assert rows[0]["collective_bytes"] == 0
    size = CONFIG.train.batch_size
    for row in rows:
        share = max(1, size // row["devices"])
        assert row["batch_per_device"] == share
        assert row["batch_size"] == share * row["devices"]
        assert row["step_s"] == pytest.approx(
            max(row["compute_s"], row["memory_s"]) + row["interconnect_s"]
        )
    alone = plan["stages"]["student"]["memory"]
    assert rows[0]["memory_bytes"] == sum(alone.values())
    cached = plan["roofline"]["student"][0]
    assert cached["earlier_stages"] == "cached"
    assert cached["compute_s"] < rows[0]["compute_s"]
    assert {r["earlier_stages"] for r in plan["roofline"]["teacher"]} == {"none"}
    assert plan["cache"]["bytes"] == 10 * plan["cache"]["bytes_per_window"]


@pytest.mark.slow
def test_gradients_are_summed_over_devices(plan):
    student = plan["stages"]["student"]
    (row,) = [
        row
        for row in plan["roofline"]["student"]
        if row["devices"] == 2 and row["earlier_stages"] == "cached"
    ]
    # A ring of two sends the gradient once; scalars and gathered rows are the rest.
    assert row["collective_bytes"] >= 4 * student["trained"]
    assert row["collective_bytes"] < 4 * student["trained"] + 20_000


@pytest.mark.slow
def test_what_does_not_fit_is_told_and_cutting_helps(plan):
    whole = {row["devices"]: row for row in plan["roofline"]["teacher"]}
    need = whole[1]["memory_bytes"]
    assert whole[1]["fits"]
    cut = make_plan(
        distilclip_eeg.make_system,
        CONFIG,
        chip=CHIP._replace(memory_bytes=need - 1),
        device_counts=(1, 8),
        fully_sharded=True,
    )["roofline"]["teacher"]
    assert cut[0]["memory_bytes"] == need
    assert not cut[0]["fits"]
    assert cut[1]["memory_bytes"] < whole[8]["memory_bytes"]
    assert cut[1]["fits"]


def test_a_runner_that_cannot_is_refused():
    def planned(**changes):
        train = dataclasses.replace(CONFIG.train, **changes)
        return dataclasses.replace(CONFIG, train=train)

    with pytest.raises(InputError, match="uses one device, not 4"):
        make_plan(
            distilclip_eeg.make_system, planned(runner="single"), device_counts=(4,)
        )
    with pytest.raises(InputError, match="use mesh"):
        make_plan(
            distilclip_eeg.make_system, planned(runner="pmap"), fully_sharded=True
        )


def test_an_unknown_preset_is_one_message(capsys):
    assert main(["plan", "distilclip_eeg", "--preset", "tiny"]) == 2
    assert "no preset 'tiny'" in capsys.readouterr().err


ARGS = ["plan", "distilclip_eeg", "--preset", "quickstart", "--text.source", "none"]


@pytest.mark.slow
def test_the_verb_prints_a_table_and_json(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*ARGS, "--chip", "H100", "--devices", "1024", "--windows", "7"]) == 0
    said = capsys.readouterr().out
    assert "…" not in said
    assert "H100: student, earlier stages cached" in said
    assert "for 7 windows" in said
    assert "there it is the next multiple" in " ".join(said.split())
    args = [*ARGS, "--json", "--chip", "v6e", "--devices", "8", "--fully_sharded"]
    assert main(args) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["chip"]["name"] == "v6e"
    assert plan["fully_sharded"]
    assert plan["devices"] == 8
    assert [row["devices"] for row in plan["roofline"]["teacher"]] == [8]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--chip", "B9"], "--chip is one of"),
        (["--devices", "-1"], "0 or more"),
        (["--runner", "single", "--devices", "2"], "uses one device"),
    ],
)
def test_a_wrong_option_is_one_message(args, message, capsys):
    assert main([*ARGS, *args]) == 2
    assert message in capsys.readouterr().err
