"""What users do wrong: exit code 2, one clear message, nothing half-written."""

import errno
import json
import os
import shutil

import pytest

from eegkd.cli import main
from eegkd.commands import predict as predict_verb
from tests.support.edf import write_edf
from tests.support.recordings import NAMES, RATE, noise, write_folder
from tests.support.untrained_runs import make_run

# What the few windows of `run` can be trained with.
FITTING = ("--num_folds", "3", "--train.batch_size", "16")
PREPARE = (
    *("--data.corpus", "folder", "--data.rate", "64", "--data.band", "0.5", "25"),
    *("--data.window_s", "2", "--data.workers", "1"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    return make_run(folder / "run", write_folder(folder / "mine"))


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch):
    monkeypatch.delenv("EEGKD_REAL_DATA", raising=False)


@pytest.fixture
def refused(capsys):
    """Runs a command that must fail; returns its one message."""

    def check(*args):
        capsys.readouterr()
        assert main([str(arg) for arg in args]) == 2
        lines = [x for x in capsys.readouterr().err.splitlines() if x.strip()]
        assert len(lines) == 1, lines
        assert lines[0].startswith("eegkd: ")
        assert "Traceback" not in lines[0]
        return lines[0]

    return check


def prepare(refused, folder, *args, out=None):
    out = out or folder.with_name("store")
    message = refused("prepare", *PREPARE, "--data.root", folder, "--out", out, *args)
    assert not out.exists()
    return message


# What a reader or a cutter refuses, and how, is in tests/data.
@pytest.mark.parametrize(
    ("change", "args", "named"),
    [
        ("cut", (), "header says 60 data records"),
        ("gone", (), "no such file"),
        ("folder", (), "--data.corpus folder"),
        ("", ("--data.corpus", "scalp"), "name the folder of its recordings"),
        ("", ("--data.band", "0.5", "70"), "--data.band 70 Hz"),
        ("flat", (), "missing channels Cz"),
        ("flat for a while", (), "--data.zscore recording"),
        ("short", (), "no window of 2 s fits into 1 s"),
    ],
)
def test_a_bad_recording_is_refused_before_the_model_is_built(
    refused, run, tmp_path, monkeypatch, change, args, named
):
    path = tmp_path / "a.edf"
    signal = noise(seconds=1 if change == "short" else 60)
    signal[2] *= change != "flat"
    signal[1, 3000:] *= change != "flat for a while"
    write_edf(path, signal, NAMES, rate=RATE)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-10_000])
    elif change == "gone":
        path.unlink()
    elif change == "folder":
        path = tmp_path

    def built(*args):
        raise AssertionError("The model was built.")

    monkeypatch.setattr(predict_verb, "load_model", built)
    out = tmp_path / "predictions"
    message = refused("predict", path, "--model", run, "--out", out, *args)
    assert named in message
    assert str(path) in message
    assert not out.exists()


def test_bad_recordings_and_labels_leave_no_store(refused, tmp_path):
    folder = write_folder(tmp_path / "mine")
    message = prepare(refused, folder, "--data.window_s", "100")
    assert "Lower --data.window_s" in message
    assert "--data.band" in prepare(refused, folder, "--data.band", "0.5", "60")
    signal = noise()
    signal[2] = 5.0
    write_edf(folder / "p0.edf", signal, NAMES, rate=RATE)
    assert "flat: Cz" in prepare(refused, folder)
    (folder / "labels.csv").write_text("file,label\nother.edf,task\n")
    assert "it belongs to other recordings" in prepare(refused, folder)


def test_one_class_only(refused, tmp_path):
    folder = write_folder(tmp_path / "mine")
    names = [f"p{i}.edf,{i},task" for i in range(4)]
    (folder / "labels.csv").write_text("\n".join(["file,subject,label", *names]))
    store, out = tmp_path / "store", tmp_path / "run"
    assert (
        main([*("prepare", *PREPARE, "--data.root", str(folder)), "--out", str(store)])
        == 0
    )
    args = ("--store", store, "--out", out, "--split", "loso")
    message = refused("distill", "distilclip_eeg", *args)
    assert "only class 'task'" in message
    assert not out.exists()


def test_weights_of_another_model(refused, run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    place = other / "fold0"
    weights = place / "student" / "seed0" / "variables.safetensors"
    shutil.copy(place / "teacher" / "variables.safetensors", weights)
    # A run that is older than the hashes of its files.
    (weights.parent / "done.json").write_text(json.dumps({"seconds": 0.0}))
    recording = run.parent / "mine" / "p0.edf"
    args = ("predict", recording, "--model", other, "--out", tmp_path / "out")
    message = refused(*args)
    assert f"{weights} holds another model" in message
    assert "block_1" in message
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "damaged file of weights" in refused(*args)
    weights.unlink()
    assert "no such file of weights" in refused(*args)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("predict", "variables.safetensors"),
        ("export", "val.npz"),
        ("evaluate", "test.npz"),
    ],
)
def test_results_that_were_altered(refused, run, tmp_path, verb, name):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    if verb == "evaluate":  # Of a run of one fold: it has three.
        for fold in ("fold1", "fold2"):
            shutil.copytree(run / "fold0", other / fold)
    file = other / "fold0" / "student" / "seed0" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    args = {
        "predict": (run.parent / "mine" / "p0.edf", "--model", other),
        "export": (other, "--format", "safetensors", "--runs", "0"),
        "evaluate": (other,),
    }[verb]
    out = () if verb == "evaluate" else ("--out", tmp_path / "out")
    assert f"{file} was altered or damaged since" in refused(verb, *args, *out)
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_none(refused, run, tmp_path):
    recording = run.parent / "mine" / "p0.edf"
    message = refused("predict", recording, "--model", tmp_path)
    assert "is no run folder" in message
    args = ("predict", recording, "--model", run, "--row", "small_net")
    assert "no finished model 'small_net'" in refused(*args)


def test_an_output_folder_that_cannot_be(refused, run, tmp_path):
    # Below a file nothing can be made, not even by root, whom chmod does not stop.
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    recording = run.parent / "mine" / "p0.edf"
    message = refused("predict", recording, "--model", run, "--out", out)
    assert str(out) in message
    message = refused(
        *("prepare", *PREPARE, "--data.root", run.parent / "mine", "--out", out)
    )
    assert f"Cannot write {out}" in message.replace("Cannot write to", "Cannot write")
    store = run / "store"
    args = ("--store", store, "--out", out, *FITTING)
    message = refused("distill", "distilclip_eeg", *args)
    assert f"Cannot write {out}" in message.replace("Cannot write to", "Cannot write")


@pytest.mark.parametrize("verb", ["predict", "prepare", "distill"])
def test_a_full_disk(refused, run, tmp_path, monkeypatch, verb):
    out, folder = tmp_path / "out", run.parent / "mine"
    args = {
        "predict": (folder / "p0.edf", "--model", run, "--out", out),
        "prepare": (*PREPARE, "--data.root", folder, "--out", out),
        "distill": ("distilclip_eeg", "--store", run / "store", *FITTING),
    }[verb]
    if verb == "distill":
        args = (*args, "--out", out)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    message = refused(verb, *args)
    assert "No space left on device" in message
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in left if "xla" not in path.parts]


def test_a_run_with_other_options(refused, run):
    message = refused(
        *("distill", "distilclip_eeg", "--store", run / "store", "--out", run),
        *FITTING,
    )
    assert f"{run} holds a run with another `" in message
    assert "--resume" in message


def test_resume_and_evaluate_of_a_folder_that_is_no_run(refused, run, tmp_path):
    assert "is no run folder" in refused("distill", "--resume", tmp_path)
    assert "is no run folder" in refused("evaluate", tmp_path)
    assert "--resume needs a value" in refused("distill", "--resume")
    (tmp_path / "config.json").write_text("{")
    assert "damaged JSON" in refused("evaluate", tmp_path)


def test_an_unfinished_run_is_not_judged(refused, run):
    message = refused("evaluate", run)
    assert "is not finished: 4 trainings are missing" in message
    assert f"`eegkd distill --resume {run}`" in message


def test_unknown_words(refused):
    assert "no verb 'distil'" in refused("distil")
    assert "no system 'clip'" in refused("distill", "clip")
    assert "no system or model 'clip'" in refused("plan", "clip")
    assert "Name a system first" in refused("plan", "--json")
    assert "no preset 'huge'" in refused("plan", "distilclip_eeg", "--preset", "huge")
    assert "--data.corpus chb is unknown" in refused(
        "prepare", "--data.corpus", "chb", "--out", "store"
    )
    assert "is no folder" in refused(
        "prepare", "--data.corpus", "bonn", "--out", "store"
    )


def test_a_bad_option(capsys):
    for args in (
        ("plan", "distilclip_eeg", "--promt.mode", "none"),
        ("plan", "distilclip_eeg", "--prompt.mode", "learned"),
        ("plan", "distilclip_eeg", "--events.smooth", "2"),
        ("prepare", "--data.rate", "fast", "--out", "store"),
        ("predict",),
    ):
        with pytest.raises(SystemExit) as error:
            main(args)
        assert error.value.code == 2
        assert "Traceback" not in capsys.readouterr().err
