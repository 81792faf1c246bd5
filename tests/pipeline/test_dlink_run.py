"""DLink through the pipeline: rows beside one teacher, again from what is finished."""

import dataclasses
import html

import pytest

from eegkd.config import TrainConfig, preset_config
from eegkd.data.windows.folds import make_folds
from eegkd.models import CBraModConfig, DlinkStudentConfig
from eegkd.pipeline.folder import read_log
from eegkd.pipeline.run import run_distillation
from eegkd.systems.dlink.config import TeacherConfig
from eegkd.systems.entry import find
from eegkd.train.weights import load_variables
from experiments.dlink import VARIANTS
from tests.support.stores import tiny_store

ROWS = ("no_teacher", "shuffled_teacher")
TABLE = ("last", "logit_kd")


@pytest.mark.slow
def test_variants_share_a_teacher_that_is_trained_once(tmp_path):
    entry = find("dlink")
    config = dataclasses.replace(
        preset_config(entry, "small"),
        out=str(tmp_path / "run"),
        teacher=TeacherConfig(
            head="average",
            cbramod=CBraModConfig(filters=5, depth=1, num_heads=2, ffn_dim=8),
        ),
        student=DlinkStudentConfig(mimic_hidden=4, compress_width=8, norm_groups=2),
        num_folds=2,
        num_seeds=1,
        rows=ROWS,
        train=TrainConfig(epochs=1, batch_size=16, max_steps=3),
    )
    store = tiny_store(per_subject=12, rate=200.0, t=400)
    folds = make_folds(store, config.split, num_folds=2)
    variants = [(name, VARIANTS[name]) for name in TABLE]

    def run():
        return run_distillation(
            entry.make_system,
            store,
            folds,
            config,
            variants=variants,
            same_teacher=True,
            registered=("no_teacher",),
        )

    rows = run()
    models = {row["model"] for row in rows}
    assert models == {"teacher", "student", *ROWS, *TABLE}
    measured = {(row["model"], row["metric"]) for row in rows if row["low"] is None}
    assert ("student", "alpha_embed") in measured
    assert ("last", "band_error_alpha") in measured
    assert ("no_teacher", "rank_compressed") in measured
    assert ("no_teacher", "band_error_alpha") not in measured
    log = read_log(tmp_path / "run" / "metrics.jsonl")
    watched = {row["model"] for row in log if "val/alpha_embed" in row}
    assert watched == {"student", "shuffled_teacher"}
    assert set(TABLE) < {row["model"] for row in log if "loss" in row}
    assert all(
        abs(row["train/alpha_embed"] + row["train/alpha_block_0"] - 1) < 1e-5
        for row in log
        if "train/alpha_embed" in row
    )
    page = html.unescape((tmp_path / "run" / "report.html").read_text())
    assert "<h2>Weights of the teacher's layers</h2>" in page
    done = {
        str(file.parent.relative_to(tmp_path / "run" / "fold0"))
        for file in (tmp_path / "run" / "fold0").rglob("done.json")
    }
    students = {"student/seed0", *(f"{row}/seed0" for row in ROWS)}
    assert done == {"teacher", *students, *(f"{row}/student/seed0" for row in TABLE)}
    file = tmp_path / "run" / "fold0" / "student" / "seed0" / "variables.safetensors"
    assert "router" not in load_variables(file).params
    assert run() == rows
