"""When a recording began, as its file says it, and where that is written."""

import datetime

import mne
import numpy as np
import pytest

from eegkd.data.recordings.reading import read_recording
from eegkd.evaluate.events import Detection
from eegkd.evaluate.szcore import read_szcore_tsv, write_szcore_tsv
from tests.support.edf import write_edf
from tests.support.recordings import NAMES, noise

START = datetime.datetime(2023, 5, 6, 7, 8, 9)


def fif(path, date, crop=0.0):
    info = mne.create_info(list(NAMES), 100.0, "eeg")
    raw = mne.io.RawArray(1e-6 * noise(seconds=20), info, verbose="error")
    raw.set_meas_date(date)
    raw.crop(tmin=crop).save(path, verbose="error")
    return path


def wfdb_record(folder, start=""):
    """Writes a record of two leads byte by byte; wfdb warns when it is loaded."""
    signal = np.round(noise(seconds=4)[:2].T).astype("<i2")
    lines = [f"r 2 100 {len(signal)} {start}".rstrip()]
    lines += [
        f"r.dat 16 1000/mV 16 0 {signal[0, i]} 0 0 {('I', 'II')[i]}" for i in (0, 1)
    ]
    (folder / "r.dat").write_bytes(signal.tobytes())
    (folder / "r.hea").write_text("\n".join(lines) + "\n")
    return folder / "r.hea"


def test_an_edf_states_its_start(tmp_path):
    file = write_edf(tmp_path / "a.edf", noise(seconds=4), NAMES)
    assert read_recording(file).date == datetime.datetime(2020, 1, 1)


@pytest.mark.parametrize(("crop", "late"), [(0.0, 0), (5.0, 5)])
def test_a_fif_states_it_and_a_cropped_one_begins_later(tmp_path, crop, late):
    utc = START.replace(tzinfo=datetime.UTC)
    file = fif(tmp_path / "a_raw.fif", utc, crop)
    assert read_recording(file).date == START + datetime.timedelta(seconds=late)


def test_a_file_without_a_date_has_none(tmp_path):
    assert read_recording(fif(tmp_path / "a_raw.fif", None)).date is None
    assert read_recording(wfdb_record(tmp_path)).date is None


def test_a_wfdb_record_states_it(tmp_path):
    file = wfdb_record(tmp_path, "07:08:09 06/05/2023")
    assert read_recording(file).date == START


def test_it_comes_back_from_the_table(tmp_path):
    for date in (START, None):
        file = write_szcore_tsv(
            tmp_path / "t.tsv",
            [Detection(1.0, 2.0, 0.5)],
            duration_s=60.0,
            date_time=date,
            trial_type=date is None,
        )
        assert read_szcore_tsv(file).date_time == date
        heads = file.read_text().splitlines()[0].split("\t")
        assert ("trial_type" in heads) is (date is None)
    assert np.loadtxt(file, str, delimiter="\t")[1][2] == "sz"
