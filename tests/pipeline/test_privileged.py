"""Runs whose student sees fewer channels than its teacher."""

import dataclasses

import jax
import numpy as np
import pytest

from eegkd.config import TrainConfig, preset_config
from eegkd.data.windows.folds import make_folds
from eegkd.models import CBraModConfig, DlinkStudentConfig, LoraConfig
from eegkd.pipeline.baselines import band_features, small_nets
from eegkd.pipeline.folder import read_json
from eegkd.pipeline.folds import fold_data
from eegkd.pipeline.run import run_distillation
from eegkd.systems.batches import stage_shapes
from eegkd.systems.entry import find
from eegkd.systems.foundation import TeacherConfig
from eegkd.systems.signal import signal_of
from eegkd.train.weights import load_variables
from tests.support.stores import tiny_store


def test_the_rows_without_a_teacher_see_what_the_student_sees():
    store = tiny_store(3, 12)
    signal = signal_of(store)
    kernels = {
        net.columns: stage_shapes(net, signal)["student"]
        .trained.params["spatial"]
        .shape[0]
        for net in small_nets(signal, (2, 0)).values()
    }
    assert kernels == {(2, 0): 2}
    data = fold_data(store, make_folds(store, num_folds=3)[0])
    rows = np.arange(4)
    narrow = store.signal[:, [2, 0]]
    few = data._replace(store=dataclasses.replace(store, signal=narrow))
    np.testing.assert_array_equal(
        band_features(data, rows, (2, 0)), band_features(few, rows)
    )


@pytest.mark.slow
def test_a_teacher_with_adapters_and_all_channels_teaches_a_student_of_two(tmp_path):
    entry = find("dlink")
    config = dataclasses.replace(
        preset_config(entry, "small"),
        out=str(tmp_path / "run"),
        student_channels=("C4", "C3"),
        teacher=TeacherConfig(
            train="lora",
            lora=LoraConfig(rank=2),
            head="average",
            cbramod=CBraModConfig(filters=5, depth=1, num_heads=2, ffn_dim=8),
        ),
        student=DlinkStudentConfig(mimic_hidden=4, compress_width=8, norm_groups=2),
        num_folds=2,
        num_seeds=1,
        rows=("no_teacher", "linear"),
        train=TrainConfig(epochs=1, batch_size=16, max_steps=2, sweep="sequential"),
    )
    store = tiny_store(per_subject=12, rate=200.0, t=400)
    folds = make_folds(store, config.split, num_folds=2)
    registered = ("no_teacher",)
    rows = run_distillation(
        entry.make_system, store, folds, config, registered=registered
    )
    assert {row["model"] for row in rows} >= {"teacher", "student", *config.rows}
    fold = tmp_path / "run" / "fold0"
    teacher = load_variables(fold / "teacher" / "variables.safetensors")
    assert (teacher.params.keys(), teacher.frozen) == ({"backbone", "head"}, {})
    for row in ("student", "no_teacher"):
        student = load_variables(fold / row / "seed0" / "variables.safetensors")
        assert student.params["spatial"].shape[0] == 2
    summary = read_json(tmp_path / "run" / "summary.json")
    assert "see C4, C3; the teacher sees all 3" in summary["notes"][0]
    facts = summary["facts"]["teacher"]
    assert facts["parameters"] == sum(x.size for x in jax.tree.leaves(teacher.params))
    assert facts["head"] == 40 * 2 + 2
    assert "+ head 82</small>" in (tmp_path / "run" / "report.html").read_text()
    saved = read_json(tmp_path / "run" / "config.json")["run"]
    assert saved["student_channels"] == ["C4", "C3"]
