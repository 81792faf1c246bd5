"""norms.json of a fold, from windows that are z-scored and windows that are not."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from eegkd.data.windows.folds import make_folds
from eegkd.data.windows.prepare import prepare
from eegkd.data.windows.recorded import RECORDED, read_recorded
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.evaluate.norms import AMPLITUDE
from eegkd.pipeline.folds import fold_data
from eegkd.pipeline.norms import NORMS, keep_norms, read_norms
from tests.support.edf import write_edf
from tests.support.recordings import NAMES, noise, write_folder
from tests.support.untrained_runs import DATA


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Six people; the last one is recorded at another rate."""
    folder = write_folder(tmp_path_factory.mktemp("norms") / "mine", num_subjects=6)
    write_edf(folder / "p5.edf", noise(5, rate=200), NAMES, rate=200)
    return folder


def stored(mine, out, **changes):
    data = dataclasses.replace(DATA, root=str(mine), **changes)
    return prepare(data, out, progress=False)


def kept(store, folder, columns=(), channels=NAMES, **folds):
    fold = make_folds(store, num_folds=3, **folds)[0]
    keep_norms(folder, fold_data(store, fold), columns)
    return read_norms(folder, channels), fold


def named(norms):
    return {norm.name: norm for norm in norms.values}


@pytest.mark.parametrize("zscore", ["window", "recording", "none", "train_set"])
def test_amplitudes_are_those_before_any_zscore(mine, tmp_path, zscore):
    store = stored(mine, tmp_path / "store", zscore=zscore)
    norms, fold = kept(store, tmp_path / "fold0")
    plain = stored(mine, tmp_path / "plain", zscore="none")
    size = np.median(np.asarray(plain.signal[fold.train]).std(axis=2), axis=1)
    quantiles = named(norms)[AMPLITUDE].quantiles
    assert quantiles[5] == pytest.approx(np.median(size), rel=1e-3)
    assert quantiles[0] == pytest.approx(size.min(), rel=1e-3)
    assert norms.units == ("uV",) * 5
    people = {store.index["subject"][row] for row in fold.train}
    assert norms.rates == ((100.0, 200.0) if "5" in people else (100.0,))
    assert (norms.num_people, norms.num_recordings) == (len(people), len(people))
    assert norms.seconds == 60
    assert norms.num_windows == len(fold.train)


def test_a_store_is_the_same_and_has_the_file_beside_it(mine, tmp_path):
    store = stored(mine, tmp_path / "store")
    found = read_recorded(store.path, 6, store.signal.shape)
    assert found.rate.tolist() == [100.0] * 5 + [200.0]
    assert found.units.tolist() == [["uV"] * 5] * 6
    assert found.scale.shape == store.signal.shape[:2]
    assert RECORDED not in store.manifest["files"]
    content = (store.path / RECORDED).read_bytes()
    again = stored(mine, tmp_path / "again")
    assert again.fingerprint == store.fingerprint
    assert (again.path / RECORDED).read_bytes() == content


def test_an_older_store_gives_band_powers_alone(mine, tmp_path):
    store = stored(mine, tmp_path / "store")
    (store.path / RECORDED).unlink()
    norms, _ = kept(WindowStore.open(store.path), tmp_path / "fold0")
    assert set(named(norms)) == {"0.5-4 Hz", "4-8 Hz", "8-13 Hz", "13-25 Hz"}
    assert (norms.units, norms.rates) == ((), ())


@pytest.mark.parametrize("damage", ["altered", "cut", "of another store"])
def test_a_wrong_file_is_refused_and_can_be_deleted(mine, tmp_path, damage):
    store = stored(mine, tmp_path / "store")
    file = store.path / RECORDED
    content = bytearray(file.read_bytes())
    if damage == "altered":
        content[len(content) // 2] ^= 255
    elif damage == "cut":
        del content[len(content) // 2 :]
    else:
        few = tmp_path / "few"
        shutil.copytree(mine, few)
        lines = (few / "labels.csv").read_text().splitlines()
        (few / "labels.csv").write_text("\n".join(lines[:-1]) + "\n")
        (few / "p5.edf").unlink()
        content = (stored(few, tmp_path / "other").path / RECORDED).read_bytes()
    file.write_bytes(content)
    with pytest.raises(InputError, match="Delete that file") as error:
        kept(store, tmp_path / "fold0")
    assert str(file) in str(error.value)
    file.unlink()
    norms, _ = kept(store, tmp_path / "fold0")
    assert AMPLITUDE not in named(norms)


def test_a_student_of_two_channels_has_norms_of_its_own(mine, tmp_path):
    store = stored(mine, tmp_path / "store")
    names = ("O2", "C3")
    every, _ = kept(store, tmp_path / "fold0", columns=(4, 1))
    two, _ = kept(store, tmp_path / "fold0", columns=(4, 1), channels=names)
    assert (every.channels, two.channels) == (NAMES, names)
    assert named(two)[AMPLITUDE] != named(every)[AMPLITUDE]
    assert read_norms(tmp_path / "fold0", ("O2", "Cz")) is None
    assert read_norms(tmp_path / "fold1", NAMES) is None


def test_altered_norms_are_refused_and_written_once(mine, tmp_path):
    store, folder = stored(mine, tmp_path / "store"), tmp_path / "fold0"
    norms, _ = kept(store, folder)
    before = (folder / NORMS).read_bytes()
    kept(store, folder)
    assert (folder / NORMS).read_bytes() == before
    record = json.loads(before)
    record["norms"][0]["limit"] = 99.0
    (folder / NORMS).write_text(json.dumps(record))
    with pytest.raises(InputError, match="was altered.*Delete that file"):
        read_norms(folder, NAMES)
    (folder / NORMS).unlink()
    assert kept(store, folder)[0] == norms
