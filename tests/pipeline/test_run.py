import json

import jax
import numpy as np
import pytest

from eegkd.config import TrainConfig, num_steps, preset_config, run_config, stage_config
from eegkd.data.windows.folds import make_folds
from eegkd.errors import InputError
from eegkd.evaluate.assays.verdict import head_room_note
from eegkd.evaluate.paired import paired_comparison
from eegkd.evaluate.report.verdicts import difference
from eegkd.evaluate.statistics import Summary
from eegkd.pipeline.finished import RESULTS
from eegkd.pipeline.folder import from_json, read_json, to_json
from eegkd.pipeline.folds import selection_metrics
from eegkd.systems import Stage, StageOptions
from eegkd.systems.distilclip_eeg.config import DistilClipConfig
from eegkd.systems.entry import find
from eegkd.train.weights import load_variables
from tests.support import tiny_run

TIMES = ("expected_s", "spent_s")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "tiny"
    return out, tiny_run.run(out)


@pytest.mark.slow
def test_a_run_leaves_its_rows_report_and_models(finished):
    out, rows = finished
    models = {row["model"] for row in rows}
    assert models == {
        "teacher", "student", "alpha_0", "no_teacher", "shuffled_teacher", "linear",
    }  # fmt: skip
    assert json.loads((out / "results.json").read_text()) == rows
    kept = ("config.json", "splits.json", "summary.json", "metrics.jsonl")
    for name in (*kept, "fold0/norms.json", "fold1/norms.json"):
        assert (out / name).is_file(), name
    page = (out / "report.html").read_text()
    assert 'src="http' not in page
    assert "no_teacher" in page.replace(" ", "_")
    for row in rows:
        assert {"model", "metric", "mean", "low", "high", "n_subjects", "seeds",
                "verdict"} <= set(row)  # fmt: skip
        assert row["n_subjects"] == 6


@pytest.mark.slow
def test_agreement_and_identity_are_recorded(finished):
    out, _ = finished
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["agreement"]) >= {"student", "no_teacher", "linear"}
    student = summary["agreement"]["student"]
    assert 0 <= student["top1"] <= 1
    assert student["kl"] >= 0
    assert len(student["by_class"]) == len(tiny_run.tiny_store().classes)
    assert set(summary["identity"]) == {
        "band power", "teacher", "student", "no_teacher",
    }  # fmt: skip
    page = (out / "report.html").read_text()
    assert "Agreement with the teacher" in page
    assert "Who it is" in page


@pytest.mark.slow
def test_the_student_keeps_the_teachers_class_vectors(finished):
    out, _ = finished
    teacher = load_variables(out / "fold0/teacher/variables.safetensors")
    student = load_variables(out / "fold0/student/seed0/variables.safetensors")
    np.testing.assert_array_equal(
        teacher.frozen["class_vectors"], student.frozen["class_vectors"]
    )
    alone = load_variables(out / "fold0/no_teacher/seed0/variables.safetensors")
    assert not np.allclose(
        alone.frozen["class_vectors"], student.frozen["class_vectors"]
    )


@pytest.mark.slow
def test_a_finished_run_is_concluded_again_without_training(finished, capsys):
    out, rows = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("variables.safetensors")}
    times = [json.loads((out / "summary.json").read_text())[k] for k in TIMES]
    assert tiny_run.run(out) == rows
    assert [json.loads((out / "summary.json").read_text())[k] for k in TIMES] == times
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "Compiling" not in capsys.readouterr().out


@pytest.mark.slow
def test_other_options_in_the_same_folder_are_refused(finished):
    out, _ = finished
    with pytest.raises(InputError, match="another `seed`"):
        tiny_run.run(out, seed=1)


def test_config_survives_json():
    entry = find("distilclip_eeg")
    for name in entry.presets:
        config = preset_config(entry, name)
        assert from_json(run_config(DistilClipConfig), to_json(config)) == config, name


def test_every_fold_trains_as_many_steps():
    store = tiny_run.tiny_store()
    folds = make_folds(store, "kfold", num_folds=3)
    sizes = [len(fold.train) for fold in folds]
    steps = num_steps(TrainConfig(epochs=2, batch_size=16), sizes)
    assert steps == 2 * (min(sizes) // 16)
    assert num_steps(TrainConfig(max_steps=1, batch_size=16), sizes) == 1
    train = TrainConfig(epochs=2, teacher_epochs=3, batch_size=16)
    longer = tiny_run.tiny_config("", train=train)
    stage = Stage("any", lambda *args: None, lambda *args: None)
    student, teacher = (stage_config(longer, stage, last=x) for x in (True, False))
    assert num_steps(student.train, sizes) == steps
    assert num_steps(teacher.train, sizes) == steps * 3 // 2
    own = stage._replace(options=StageOptions(epochs=5, batch_size=8))
    asked = stage_config(longer, own, last=False).train
    assert (asked.epochs, asked.batch_size) == (5, 8)


def test_a_batch_that_no_fold_fills_leaves_no_run_behind(tmp_path):
    train = TrainConfig(epochs=3, batch_size=100)
    with pytest.raises(InputError, match=r"--train.batch_size 100: .* on \d+ windows"):
        tiny_run.run(tmp_path / "run", train=train)
    assert not (tmp_path / "run").exists()


def test_presets_and_systems_are_named_in_errors():
    with pytest.raises(InputError, match="paper, tpu, small"):
        preset_config(find("distilclip_eeg"), "huge")
    with pytest.raises(InputError, match="distilclip_eeg"):
        find("no_such_system")


def test_epochs_are_chosen_by_auroc_of_two_classes_and_by_kappa_of_more():
    two = tiny_run.tiny_store(2, 4)
    three = tiny_run.tiny_store(2, 4, classes=["a", "b", "c"], background=None)
    assert [selection_metrics(store) for store in (two, three)] == [
        ("auroc",),
        ("kappa",),
    ]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match="no run folder"):
        read_json(tmp_path / "config.json")


def test_the_verdict_is_told_with_how_far_seeds_move_it():
    base = np.linspace(0.5, 0.8, 8)[:, None]
    one, three = base + 0.1, base + np.array([0.0, 0.1, 0.2])
    told = lambda student: difference(
        "Student", "no_teacher", "auroc", paired_comparison(student, base)
    )
    assert "Student minus no_teacher on auroc: +0.100 (" in told(one)
    assert "seeds" not in told(one)
    assert "n = 8, standard error over seeds 0.058, minimum" in told(three)
    few = paired_comparison(three[:3], base[:3])
    assert "no verdict (too few units: 3" in difference("a", "b", "auroc", few)


def test_a_teacher_below_the_small_net_is_said_to_have_nothing_to_give():
    def rows(teacher, small):
        means = {"teacher": teacher, "small_net": small}
        return [{"model": m, "metric": "auroc", "mean": v} for m, v in means.items()]

    assert head_room_note(Summary(rows(0.9, 0.8), {}), "auroc") == ()
    (note,) = head_room_note(Summary(rows(0.7, 0.8), {}), "auroc")
    assert "0.700" in note
    assert "cannot show transfer" in note


@pytest.mark.slow
def test_students_of_taken_teachers_are_those_of_teachers_trained_there(
    finished, tmp_path
):
    source, _ = finished
    tiny_run.run(tmp_path, teacher_run=str(source), rows=())
    for fold in ("fold0", "fold1"):
        done = read_json(tmp_path / fold / "teacher" / "done.json")
        assert done["taken_from"] == str(source / fold / "teacher")
        file = f"{fold}/student/seed0/variables.safetensors"
        old, new = (load_variables(folder / file) for folder in (source, tmp_path))
        jax.tree.map(np.testing.assert_array_equal, old, new)
    assert str(source) in (tmp_path / "report.html").read_text()
    # A damaged copy is found when it is read.
    file = tmp_path / "fold0" / "teacher" / RESULTS[0]
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="altered or damaged"):
        tiny_run.run(tmp_path, teacher_run=str(source), rows=())


@pytest.mark.slow
def test_the_negative_control_is_no_teacher_with_seeds_of_its_own(tmp_path):
    train = TrainConfig(epochs=1, batch_size=16, save_every_s=60)
    asked = {"rows": ("a_a",), "num_seeds": 2, "num_folds": 2, "train": train}
    rows = tiny_run.run(tmp_path, registered=("no_teacher", "alpha_0"), **asked)
    # What the verdict rests on is trained, whatever was asked for.
    models = {"teacher", "student", "a_a", "no_teacher", "alpha_0"}
    assert {row["model"] for row in rows} == models
    assert all(row["verdict"] or row["reason"] for row in rows)
    assert {row["unit"] for row in rows} == {"subject"}
    found = [
        load_variables(tmp_path / f"fold0/{row}/seed{seed}/variables.safetensors")
        for row in ("no_teacher", "a_a")
        for seed in range(2)
    ]
    shapes = [jax.tree.map(np.shape, one) for one in found]
    assert all(shape == shapes[0] for shape in shapes)
    first = [np.asarray(jax.tree.leaves(one.params)[0]).tobytes() for one in found]
    assert len(set(first)) == 4
    summary = read_json(tmp_path / "summary.json")
    assert summary["registered"] == ["no_teacher", "alpha_0"]
    metric = rows[0]["metric"]
    assert summary["comparisons"][metric]["a_a"]["registered"] is False
    page = (tmp_path / "report.html").read_text()
    assert "a_a − no_teacher" in page
    # Resumed as its folder says, or as it was asked for: the same run.
    assert tiny_run.run(tmp_path, registered=("no_teacher", "alpha_0"), **asked) == rows
