"""What users do wrong: exit code 2, one clear message, nothing half-written."""

import csv
import errno
import os
import shutil

import mne
import numpy as np
import pytest

from eegkd.cli import main
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


@pytest.fixture
def refused_prediction(refused, run, tmp_path):
    """Predicts on a bad recording; nothing may be left of it."""

    def check(path, *args):
        out = tmp_path / "predictions"
        message = refused("predict", path, "--model", run, "--out", out, *args)
        assert not out.exists()
        assert str(path) in message
        return message

    return check


def prepare(refused, folder, *args, out=None):
    out = out or folder.with_name("store")
    message = refused("prepare", *PREPARE, "--data.root", folder, "--out", out, *args)
    assert not out.exists()
    return message


def edf(path, signal=None, names=NAMES, **options):
    signal = noise() if signal is None else signal
    return write_edf(path, signal, names, rate=RATE, **options)


def save_fif(path, signal):
    info = mne.create_info(list(NAMES), RATE, "eeg")
    mne.io.RawArray(signal * 1e-6, info, verbose="error").save(path, verbose="error")
    return path


def test_a_truncated_edf(refused_prediction, tmp_path):
    path = edf(tmp_path / "a.edf")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    message = refused_prediction(path)
    assert "header says 60 data records" in message


def test_a_wrong_suffix(refused_prediction, tmp_path):
    path = edf(tmp_path / "a.edf").rename(tmp_path / "a.bdf")
    refused_prediction(path)
    path = path.rename(tmp_path / "a.xyz")
    assert "suffix is right" in refused_prediction(path)


def test_a_missing_file_and_a_folder(refused_prediction, tmp_path):
    assert "no such file" in refused_prediction(tmp_path / "a.edf")
    assert "--data.corpus folder" in refused_prediction(tmp_path)
    file = edf(tmp_path / "a.edf")
    message = refused_prediction(file, "--data.corpus", "scalp")
    assert "name the folder of its recordings" in message


@pytest.mark.parametrize("dimension", ["V", "mV"])
def test_microvolts_that_the_header_calls_volts(
    refused_prediction, tmp_path, dimension
):
    signal = noise() * (1 if dimension == "V" else 100)
    path = edf(tmp_path / "a.edf", signal, dimension=dimension, physical_max=32767)
    message = refused_prediction(path)
    assert "the stated unit is wrong" in message
    assert "--data.unit" in message


def test_volts_taken_for_microvolts(refused_prediction, tmp_path):
    signal = noise() * 1e-6
    path = edf(tmp_path / "a.edf", signal, physical_max=0.01)
    assert "the stated unit is wrong" in refused_prediction(path)


def test_nan(refused_prediction, refused, tmp_path):
    signal = noise()
    signal[2, 300] = np.nan
    path = save_fif(tmp_path / "a_raw.fif", signal)
    message = refused_prediction(path)
    assert (
        "channel Cz holds NaN or infinite samples, the first at sample 300" in message
    )
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.move(path, folder / "a_raw.fif")
    (folder / "labels.csv").write_text("file,label\na_raw.fif,task\n")
    assert "channel Cz holds NaN" in prepare(refused, folder)


def test_a_flat_channel(refused_prediction, refused, tmp_path):
    signal = noise()
    signal[2] = 5.0
    folder = tmp_path / "mine"
    folder.mkdir()
    path = edf(folder / "a.edf", signal)
    message = refused_prediction(path)
    assert "missing channels Cz" in message
    assert "flat: Cz" in message
    (folder / "labels.csv").write_text("file,label\na.edf,task\n")
    assert "flat: Cz" in prepare(refused, folder)


def test_a_channel_that_is_flat_for_a_while(refused_prediction, tmp_path):
    signal = noise()
    signal[1, 3000:] = 0.0
    message = refused_prediction(edf(tmp_path / "a.edf", signal))
    assert "channel C3 is flat in the window at" in message
    assert "--data.zscore recording" in message


def test_a_missing_channel(refused_prediction, tmp_path):
    path = edf(tmp_path / "a.edf", noise()[:4], NAMES[:4])
    message = refused_prediction(path)
    assert "missing channels O2" in message
    assert "--data.policy" in message


def test_a_band_edge_beyond_nyquist(refused_prediction, refused, tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(rate=50), NAMES, rate=50)
    message = refused_prediction(path)
    assert "set --data.band below 22.5 Hz" in message
    folder = write_folder(tmp_path / "mine")
    message = prepare(refused, folder, "--data.band", "0.5", "60")
    assert "--data.band" in message


def test_zero_windows(refused_prediction, refused, tmp_path):
    path = edf(tmp_path / "a.edf", noise(seconds=1))
    assert "no window of 2 s fits into 1 s" in refused_prediction(path)
    folder = write_folder(tmp_path / "mine")
    message = prepare(refused, folder, "--data.window_s", "100")
    assert "Lower --data.window_s" in message


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


def test_labels_of_another_recording(refused, tmp_path):
    folder = write_folder(tmp_path / "mine")
    labels = folder / "labels.csv"
    labels.write_text("file,label\nother.edf,task\n")
    assert "it belongs to other recordings" in prepare(refused, folder)
    with labels.open("w", newline="") as file:
        rows = [("file", "onset", "duration", "label"), ("p0.edf", 900, 30, "seizure")]
        csv.writer(file).writerows(rows)
    message = prepare(refused, folder)
    assert "are these its labels?" in message
    assert "labels.csv, line 2" in message


def test_weights_of_another_model(refused, run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    place = other / "fold0"
    weights = place / "student" / "seed0" / "variables.safetensors"
    shutil.copy(place / "teacher" / "variables.safetensors", weights)
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


@pytest.mark.parametrize(
    "args",
    [
        ("plan", "distilclip_eeg", "--promt.mode", "none"),
        ("plan", "distilclip_eeg", "--prompt.mode", "learned"),
        ("plan", "distilclip_eeg", "--events.smooth", "2"),
        ("prepare", "--data.rate", "fast", "--out", "store"),
        ("predict",),
    ],
)
def test_a_bad_option(args, capsys):
    with pytest.raises(SystemExit) as error:
        main(args)
    assert error.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
