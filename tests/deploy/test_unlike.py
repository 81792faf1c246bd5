"""A recording unlike those that a model was trained on is said to be so by predict."""

import dataclasses
import json
import re

import matplotlib.axes
import numpy as np
import pytest

from eegkd.cli import main
from eegkd.data.recordings.reading import read_recording
from eegkd.data.synthetic import WORLDS, make_recording
from eegkd.data.windows.cutting import resolve_config, window_recording
from eegkd.data.windows.folds import make_folds
from eegkd.data.windows.store import WindowStore
from eegkd.deploy import export
from eegkd.deploy.export import export_model
from eegkd.deploy.inputs import Subject
from eegkd.deploy.load import Intake
from eegkd.deploy.predict import cut_subject
from eegkd.evaluate.norms import make_norms, window_values
from eegkd.pipeline.folds import fold_data
from eegkd.pipeline.norms import keep_norms, read_norms
from eegkd.systems import distilclip_eeg
from tests.support.edf import write_edf
from tests.support.real import real
from tests.support.recordings import NAMES, noise, write_folder
from tests.support.untrained_runs import make_run, read_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlike")
    run = make_run(folder / "run", write_folder(folder / "mine", num_subjects=12))
    keep(run)
    return run


def keep(run):
    store = WindowStore.open(run / "store")
    fold = make_folds(store, num_folds=3)[0]
    keep_norms(run / "fold0", fold_data(store, fold))
    return fold


def predict(run, capsys, *args):
    code = main(["predict", *map(str, args), "--model", str(run)])
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), captured.err


@pytest.mark.parametrize(
    ("signal", "rate", "said", "names"),
    [
        (noise(99), 100, None, []),
        (40 * noise(99), 100, r"amplitude \d+ uV, \d\d times above", ["amplitude"]),
        (noise(99, rate=200), 200, "rate 200 Hz, 2 times above 100", ["rate"]),
        (
            np.repeat(noise(99)[:, ::8], 8, axis=1),
            100,
            r"0.5-4 Hz \d+.\d % of the power, [0-9.]+ times above",
            ["0.5-4 Hz", "4-8 Hz", "13-25 Hz"],
        ),
    ],
)
def test_it_says_which_value_and_by_how_much(
    run, tmp_path, capsys, monkeypatch, signal, rate, said, names
):
    titles = []
    text = matplotlib.axes.Axes.text
    monkeypatch.setattr(
        matplotlib.axes.Axes,
        "text",
        lambda ax, x, y, s, **options: titles.append(s) or text(ax, x, y, s, **options),
    )
    file = write_edf(tmp_path / "new.edf", signal, NAMES, rate=rate, physical_max=3e4)
    code, out, _ = predict(run, capsys, file, "--out", tmp_path / "out")
    assert code == 0
    found = json.loads((tmp_path / "out" / "new_events.json").read_text())
    compared = found["TrainingRecordings"]
    assert set(compared["Unlike"]) >= set(names)
    assert bool(compared["Unlike"]) is bool(names)
    line = "Unlike the recordings that the model was trained on: "
    assert (line in out) is bool(names)
    note = [x for x in titles if x.startswith("unlike the recordings of training: ")]
    assert len(note) == bool(names)
    if said is not None:
        assert re.search(said, out)
        assert names[0] in note[0]
    for value in compared["Values"].values():
        assert value["Low"] <= value["High"]
    assert compared["Values"]["amplitude"]["Units"] == "uV"


def test_a_run_from_before_says_that_nothing_is_known(run, tmp_path, capsys):
    file = write_edf(tmp_path / "new.edf", 40 * noise(99), NAMES, physical_max=3e4)
    kept = (run / "fold0" / "norms.json").read_bytes()
    (run / "fold0" / "norms.json").unlink()
    try:
        code, out, _ = predict(run, capsys, file, "--out", tmp_path / "out")
    finally:
        (run / "fold0" / "norms.json").write_bytes(kept)
    assert code == 0
    assert "Nothing is known of the recordings" in out
    assert "Unlike" not in out
    assert "TrainingRecordings" not in (tmp_path / "out/new_events.json").read_text()


def test_an_export_carries_them(run, tmp_path):
    config = read_config(run)
    make, out = distilclip_eeg.make_system, tmp_path / "out"
    export_model(make, config, out, formats=("safetensors",), runs=0)
    assert read_norms(out, NAMES) == read_norms(run / "fold0", NAMES)
    assert "`norms.json` holds what" in (out / "README.md").read_text()
    # It is a file of an export, which the next one replaces.
    export._check_folder(out)


def test_of_many_recordings_a_bad_one_is_named_and_the_others_are_done(
    run, tmp_path, capsys
):
    good = [write_edf(tmp_path / f"g{i}.edf", noise(i), NAMES) for i in range(2)]
    cut = write_edf(tmp_path / "cut.edf", noise(7), NAMES)
    cut.write_bytes(cut.read_bytes()[:-5000])
    lacking = write_edf(tmp_path / "few.edf", noise(8)[:3], NAMES[:3])
    gone = tmp_path / "gone.edf"
    order = [good[0], gone, cut, lacking, good[1]]
    out = tmp_path / "out"
    code, said, err = predict(run, capsys, *order, "--out", out)
    assert code == 2
    assert "3 of 5 recordings were left out, the others are done." in err
    for path, why in ((gone, "no such file"), (cut, "data records"), (lacking, "O2")):
        assert str(path) in err
        assert why in err
    assert sorted(path.name for path in out.glob("*.tsv")) == [
        "g0_events.tsv",
        "g1_events.tsv",
    ]
    # What can be seen at once is said before anything is predicted.
    assert said.index("cut.edf") < said.index("g0: events")


def test_a_recording_is_predicted_once_however_often_it_is_named(run, tmp_path, capsys):
    file = write_edf(tmp_path / "p.edf", noise(), NAMES)
    again = tmp_path / "." / "p.edf"
    code, said, _ = predict(run, capsys, file, file, again, "--out", tmp_path / "out")
    assert code == 0
    assert said.count("p: events") == 1


def world_norms(name, seed):
    """Norms of a world's training patients, as a run on it keeps them."""
    from eegkd.data.config import DataConfig
    from eegkd.data.corpora import get_corpus

    corpus = get_corpus("synthetic", world=name, seed=seed)
    data = resolve_config(DataConfig(world=name, seed=seed), corpus)
    parts, subjects = [], WORLDS[name].split["train"]
    for subject in subjects:
        cut, recording = window_recording(
            make_recording(name, subject, seed=seed), data
        )
        parts.append(
            window_values(cut.signal, data.rate, data.band, np.float64(cut.scale))
        )
    num = [len(part["amplitude"]) for part in parts]
    norms = make_norms(
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]},
        np.repeat(np.arange(len(parts)), num),
        np.arange(len(parts)),
        np.full(len(parts), recording.duration_s),
        channels=recording.channels,
        units=recording.origin.units,
        rates=(data.rate,),
        passband=data.band,
    )
    manifest = {
        "rate": data.rate,
        "window_s": data.window_s,
        "classes": corpus.classes,
        "corpus": corpus.name,
        "preprocessing": {"band": data.band},
    }
    signal = distilclip_eeg.DistilClipConfig().signal
    signal = dataclasses.replace(signal, channels=recording.channels)
    return Intake(signal, manifest, data, (), norms)


def unlike(intake, recording):
    cut = cut_subject(intake, Subject("x", recording, frozenset()), {})
    return [x.name for x in cut.compared if x.unlike]


@pytest.fixture(scope="module")
def transfer():
    return world_norms("transfer", 0)


def test_at_most_two_of_fifty_held_out_recordings_are_called_unlike(transfer):
    split = WORLDS["transfer"].split
    held_out = [*split["val"], *split["test"]]
    assert len(held_out) == 50
    found = [unlike(transfer, make_recording("transfer", x)) for x in held_out]
    assert sum(map(bool, found)) <= 2


def test_a_healthy_rest_recording_is_unlike_the_quickstarts_seizures(transfer):
    folder = real("eegmat")
    for path in sorted(folder.glob("Subject*_1.edf"))[:3]:
        found = unlike(transfer, read_recording(path))
        assert {"rate", "amplitude", "30-40 Hz"} <= set(found)
