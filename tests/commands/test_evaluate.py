import dataclasses
import json
import shutil

import pytest

from eegkd.cli import main
from eegkd.pipeline.baselines import TRIALS
from eegkd.pipeline.schedule import missing
from eegkd.systems.distilclip_eeg import make_system
from tests.support.presets import TINY
from tests.support.recordings import write_folder
from tests.support.untrained_runs import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    recordings = write_folder(folder / "mine", num_subjects=6)
    return make_run(folder / "run", recordings, finished=True)


def state(folder):
    files = folder.glob("fold*/**/*")
    return {p: p.stat().st_mtime_ns for p in files if p.is_file()}


def test_every_training_counts(tmp_path):
    config = dataclasses.replace(TINY, num_seeds=2, rows=("small_net", "linear"))
    wanted = {f"student/seed{seed}" for seed in (0, 1)} | {"teacher"}
    wanted |= {f"small_net/seed0-{trial.name}" for trial in TRIALS}
    wanted |= {f"small_net/seed1-{TRIALS[2].name}"}
    files = {name: tmp_path / "fold0" / name / "done.json" for name in wanted}
    for file in files.values():
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    systems = {"": make_system(config)}
    assert missing(systems, config, 1, tmp_path) == []
    for name, file in files.items():
        file.unlink()
        assert len(missing(systems, config, 1, tmp_path)) == 1, name
        file.write_text("{}")


@pytest.mark.slow
def test_a_finished_run_is_judged_again_without_training(run, capsys):
    before = state(run)
    assert main(["evaluate", str(run)]) == 0
    after = state(run)
    # What a run keeps of its training recordings, and this one had not.
    new = {path.relative_to(run).as_posix() for path in after.keys() - before.keys()}
    assert new == {f"fold{fold}/norms.json" for fold in range(3)}
    assert {path: time for path, time in after.items() if path in before} == before
    rows = json.loads((run / "results.json").read_text())
    means = {(row["model"], row["metric"]): row["mean"] for row in rows}
    assert {model for model, _ in means} == {"teacher", "student", "linear"}
    # The saved predictions are right everywhere; the untrained weights are not.
    assert means["student", "accuracy"] == means["teacher", "auroc"] == 1
    summary = json.loads((run / "summary.json").read_text())
    assert summary["events"]["student"]["event_results"]["sensitivity"] == 1
    assert "<html" in (run / "report.html").read_text()
    assert "student" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [["evaluate"], ["distill", "--resume"]])
def test_weights_of_another_model_are_refused(run, tmp_path, capsys, verb):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    place = other / "fold1"
    weights = place / "student" / "seed0" / "variables.safetensors"
    shutil.copy(place / "teacher" / "variables.safetensors", weights)
    # A run that is older than the hashes of its files.
    (weights.parent / "done.json").write_text(json.dumps({"seconds": 0.0}))
    assert main([*verb, str(other)]) == 2
    assert f"{weights} holds another model" in capsys.readouterr().err


def test_another_store_and_variants_are_refused(run, tmp_path, capsys):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    file = other / "config.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"variants": ["no_prompts"]}))
    assert main(["evaluate", str(other)]) == 2
    assert "variants of the system (no_prompts)" in capsys.readouterr().err
    record["store"]["fingerprint"] = "of another"
    file.write_text(json.dumps(record))
    assert main(["evaluate", str(other)]) == 2
    assert "of another window store" in capsys.readouterr().err
