import dataclasses
import json

import jax
import numpy as np
import pytest

from eegkd.cli import main
from eegkd.data.windows.store import WindowStore
from eegkd.models import EEGNetConfig
from eegkd.ops import count_flops
from eegkd.plan.account import make_plan
from eegkd.plan.parts import count_groups, count_parts
from eegkd.systems import SignalConfig, distilclip_eeg, predict_fn, small_net
from eegkd.systems.batches import num_bytes, stage_shapes
from eegkd.typing import Variables
from tests.support.presets import TINY

SIGNAL = SignalConfig(n_chans=3, n_times=128, rate=64.0)
CONFIG = dataclasses.replace(TINY, signal=SIGNAL)


@pytest.fixture(scope="module")
def tiny():
    return make_plan(distilclip_eeg.make_system, CONFIG)


@pytest.mark.slow
def test_paper_preset_prints_the_published_totals(capsys):
    assert main(["plan", "distilclip_eeg", "--preset", "paper", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert stages["teacher"]["eeg_branch"] == 30_781_200
    assert stages["student"]["eeg_branch"] == 17_870_800
    assert stages["teacher"]["blocks"] == {"eeg/block": 3_224_400}
    assert stages["student"]["blocks"] == {"eeg/block": 3_224_400}
    parts = {part["name"]: part for part in stages["teacher"]["parts"]}
    assert parts["eeg/block"]["copies"] == 8
    assert parts["eeg/stem"]["parameters"] == 4_754_800
    assert parts["eeg/prompts"]["parameters"] == 8 * 8 * 400
    assert parts["text/prompts"]["parameters"] == 12 * 8 * 768
    # 6.7 GFLOP by hand: 100 positions, 2 operations a weight, and the attention.
    assert 6e9 < stages["teacher"]["flops_window"] < 7.5e9


def test_parts_add_up_to_what_init_makes(tiny):
    shapes = stage_shapes(distilclip_eeg.make_system(CONFIG), SIGNAL)
    for name, plan in tiny["stages"].items():
        leaves = jax.tree.leaves(shapes[name].trained.params)
        assert plan["parameters"] == sum(part["parameters"] for part in plan["parts"])
        assert plan["parameters"] == plan["trained"] == sum(x.size for x in leaves)
    assert tiny["stages"]["teacher"]["blocks"].keys() == {"eeg/block"}


def test_numbered_parts_are_one_line_and_prompts_their_own():
    params = {
        "eeg": {
            "block_0": {"mlp": {"w": np.zeros((2, 3))}, "prompts": np.zeros(4)},
            "block_1": {"mlp": {"w": np.zeros((2, 3))}, "prompts": np.zeros(4)},
        },
        "head": {"kernel": np.zeros((3, 2))},
        "tau": np.zeros(()),
    }
    frozen = {"bert": {"layer": {"w": np.zeros(5)}}, "vectors": np.zeros(9)}
    parts = {p.name: p for p in count_parts(Variables(params, frozen, {}))}
    assert parts["eeg/block"][1:] == (2, 12, True)
    assert parts["eeg/prompts"][1:] == (1, 8, True)
    assert parts["head"].parameters == 6
    assert parts["tau"].parameters == 1
    assert parts["bert"][1:] == (1, 5, False)
    assert "vectors" not in parts
    groups = count_groups(list(parts.values()))
    assert groups == {"eeg": 20, "head": 6, "tau": 1, "bert": 5}


def test_operations_are_those_of_the_counter(tiny):
    system = distilclip_eeg.make_system(CONFIG)
    shapes = stage_shapes(system, SIGNAL)
    x = {"signal": jax.ShapeDtypeStruct((1, 3, 128), np.float32)}
    want = count_flops(predict_fn(system, "student"), shapes["student"].finished, x)
    student = tiny["stages"]["student"]
    assert student["flops_window"] == want
    # Forward and twice as much backward, of 8 windows; online, the teacher's forward.
    assert 2 * 8 * want < student["flops_step"] < 4 * 8 * want
    assert student["flops_step_online"] > student["flops_step"] + 7 * want
    assert "flops_step_online" not in tiny["stages"]["teacher"]


def test_memory_is_parameters_gradients_and_two_moments(tiny):
    for plan in tiny["stages"].values():
        memory = plan["memory"]
        assert memory["parameters"] == memory["gradients"] == 4 * plan["trained"]
        counters = memory["optimiser"] - 2 * memory["parameters"]
        assert 0 <= counters < 200
        assert memory["batch"] >= 8 * (3 * 128 + 1) * 4


@pytest.mark.slow
def test_activations_grow_with_the_batch_and_shrink_with_devices(tiny):
    def activations(**changes):
        train = dataclasses.replace(CONFIG.train, **changes)
        config = dataclasses.replace(CONFIG, train=train)
        plan = make_plan(distilclip_eeg.make_system, config)
        return plan["stages"]["student"]["memory"]["activations_estimate"]

    base = tiny["stages"]["student"]["memory"]["activations_estimate"]
    assert activations(batch_size=32) == pytest.approx(4 * base, rel=0.1)
    assert activations(batch_size=32, devices=4) == base


def test_the_cache_holds_what_the_student_reads(tiny):
    assert tiny["cache"]["tensors"] == {"teacher.kd_logits": 2 * 4}
    assert tiny["cache"]["bytes_per_window"] == 8


def test_any_system_has_a_plan():
    net = EEGNetConfig(n_chans=3, n_outputs=2, rate=64.0)

    def make_system(config):
        return small_net.make_system(net)

    plan = make_plan(make_system, CONFIG)
    assert plan["cache"]["bytes_per_window"] == 0
    shapes = stage_shapes(make_system(None), SIGNAL)["student"].trained
    assert plan["stages"]["student"]["parameters"] * 4 == num_bytes(shapes.params)


@pytest.mark.slow
def test_the_verb_prints_a_table_and_takes_a_store(tmp_path, capsys):
    index = {
        "recording_id": ["a", "b"],
        "subject": ["a", "b"],
        "start_s": [0.0, 0.0],
        "label": [0, 1],
    }
    manifest = {
        "corpus": "toy",
        "classes": ["rest", "task", "other"],
        "channels": ["C3", "C4"],
        "rate": 50.0,
        "window_s": 2.0,
    }
    signal = np.zeros((2, 2, 100), np.float32)
    WindowStore.from_arrays(tmp_path / "store", signal, index, manifest)
    args = ["plan", "distilclip_eeg", "--preset", "quickstart"]
    args += [
        "--store",
        str(tmp_path / "store"),
        "--text.source",
        "random_class_vectors",
    ]
    assert main(args) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "windows of 2 channels, 100 samples at 50 Hz, 3 classes" in said
    assert "EEG branch" in said
    assert "Teacher cache: 12 bytes a window" in said
