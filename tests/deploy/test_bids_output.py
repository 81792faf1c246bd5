"""Predictions on a BIDS dataset: a derivative dataset, by the rules of the standard."""

import csv
import json
import re
from pathlib import Path

import pytest

from eegkd.cli import main
from eegkd.deploy.bids import find_bids, make_links, write_description
from eegkd.errors import InputError
from eegkd.evaluate.szcore import read_szcore_tsv
from tests.support.edf import write_edf
from tests.support.recordings import NAMES, RATE, noise, write_folder
from tests.support.untrained_runs import make_run

ENTITIES = "sub-01_ses-a_task-szMonitoring_run-02"
INSIDE = f"sub-01/ses-a/eeg/{ENTITIES}_eeg.edf"
RAW = {"Name": "raw", "BIDSVersion": "1.8.0", "DatasetDOI": "doi:10.0.2.3/dfjj.10"}
# Of the schema: an entity, and the order of those that a recording has.
LABEL = "[0-9a-zA-Z+]+"
DERIVED = re.compile(
    f"sub-{LABEL}(_ses-{LABEL})?_task-{LABEL}(_run-[0-9]+)?_desc-{LABEL}_events"
    r"\.(tsv|json)"
)


def dataset(root, **fields):
    file = root / INSIDE
    file.parent.mkdir(parents=True)
    write_edf(file, noise(1), NAMES, rate=RATE)
    (root / "dataset_description.json").write_text(json.dumps({**RAW, **fields}))
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bids")
    return make_run(folder / "run", write_folder(folder / "mine"))


@pytest.fixture
def predicted(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset(tmp_path / "raw")
    args = ["predict", f"raw/{INSIDE}", "--model", str(run), "--out", "derived"]
    assert main(args) == 0
    return tmp_path / "derived", args


def files(root):
    found = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_a_derivative_dataset_is_by_the_standard(predicted, tmp_path):
    out, args = predicted
    stem = f"sub-01/ses-a/eeg/{ENTITIES}_desc-eegkd_events"
    written = files(out)
    assert set(written) == {
        "dataset_description.json",
        ".bidsignore",
        "descriptions.tsv",
        f"{stem}.tsv",
        f"{stem}.json",
        f"figures/{ENTITIES}_desc-eegkd.png",
    }
    said = json.loads(written["dataset_description.json"])
    assert said["DatasetType"] == "derivative"
    assert said["GeneratedBy"][0]["Name"] == "eegkd"
    assert {"Name", "BIDSVersion", "GeneratedBy"} <= set(said)
    assert said["DatasetLinks"] == {"raw": "../raw"}
    assert said["SourceDatasets"] == [{"DOI": RAW["DatasetDOI"]}]
    for name in (f"{stem}.tsv", f"{stem}.json"):
        assert DERIVED.fullmatch(Path(name).name)
    rows = list(
        csv.reader(written[f"{stem}.tsv"].decode().splitlines(), delimiter="\t")
    )
    assert rows[0][:3] == ["onset", "duration", "trial_type"]
    sidecar = json.loads(written[f"{stem}.json"])
    assert set(rows[0]) <= set(sidecar)
    assert sidecar["Sources"] == [f"bids:raw:{INSIDE}"]
    link = out / said["DatasetLinks"]["raw"]
    assert (link / INSIDE).samefile(tmp_path / "raw" / INSIDE)
    assert read_szcore_tsv(out / f"{stem}.tsv").duration_s == 60
    assert written[".bidsignore"] == b"figures/\n"
    # No time stamps: the same again, to the last byte.
    assert main(args) == 0
    assert files(out) == written


def test_mne_bids_reads_the_derivative(predicted):
    mne_bids = pytest.importorskip("mne_bids")
    out, _ = predicted
    words = {"subject": "01", "session": "a", "task": "szMonitoring", "run": "02"}
    path = mne_bids.BIDSPath(
        root=out,
        datatype="eeg",
        suffix="events",
        extension=".tsv",
        description="eegkd",
        check=False,
        **words,
    )
    assert path.fpath.is_file()
    found = mne_bids.get_entities_from_fname(path.fpath)
    assert {k: found[k] for k in words} == words


def test_datasets_of_the_same_people_do_not_mix(predicted, run, tmp_path, capsys):
    out, args = predicted
    dataset(tmp_path / "second", Name="second")
    before = files(out)
    other = ["predict", f"second/{INSIDE}", *args[2:]]
    assert main(other) == 2
    assert "is of another recording" in capsys.readouterr().err
    assert files(out) == before
    other[-1] = "elsewhere"
    assert main(other) == 0
    links = make_links(out, [tmp_path / "raw", tmp_path / "second"])
    assert list(links.values()) == ["raw", "raw2"]


@pytest.mark.parametrize("description", ["{}", "[]", '{"GeneratedBy": 3}', "{"])
def test_a_dataset_of_others_is_no_place_for_output(tmp_path, description):
    (tmp_path / "dataset_description.json").write_text(description)
    with pytest.raises(InputError, match="derivatives/eegkd") as error:
        make_links(tmp_path, [tmp_path / "raw"])
    assert str(tmp_path) in str(error.value)
    inside = tmp_path / "derivatives" / "eegkd"
    links = make_links(inside, [tmp_path])
    write_description(inside, links)
    said = json.loads((inside / "dataset_description.json").read_text())
    assert said["DatasetLinks"] == {"raw": "../.."}
    assert "SourceDatasets" not in said


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (INSIDE, f"{ENTITIES}_desc-eegkd"),
        ("sub-01/eeg/sub-01_task-x_eeg.vhdr", "sub-01_task-x_desc-eegkd"),
        (
            "sub-01/eeg/sub-01_task-x_desc-clean_eeg.edf",
            "sub-01_task-x_desc-cleanEegkd",
        ),
        ("sub-01/eeg/sub-02_task-x_eeg.edf", None),
        ("rec/sub-01_task-x_eeg.edf", None),
        ("sub-01/eeg/recording.edf", None),
    ],
)
def test_a_file_is_of_bids_by_its_name_and_place(tmp_path, name, stem):
    (tmp_path / "dataset_description.json").write_text("{}")
    found = find_bids(tmp_path / name)
    assert (found and found.stem) == stem
    if found is not None:
        assert (found.root, found.path) == (tmp_path, name)
    (tmp_path / "dataset_description.json").unlink()
    assert find_bids(tmp_path / name) is None
