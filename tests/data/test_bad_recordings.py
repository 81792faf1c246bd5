import shutil

import mne
import numpy as np
import pytest

from eegkd.data import DataConfig, read_recording
from eegkd.data.recordings.preprocess import preprocess
from eegkd.errors import InputError
from tests.support.edf import write_edf
from tests.support.real import real

NAMES = ("Fp1", "Cz", "O2")


def noise(scale=30.0, seconds=4, rate=100):
    return scale * np.random.default_rng(0).normal(size=(3, seconds * rate))


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        read_recording(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "a.edf")


def test_a_folder(tmp_path):
    assert "--data.corpus folder" in refusal(tmp_path)


@pytest.mark.parametrize("cut", [1, 600, 1200])
def test_a_truncated_edf(tmp_path, cut):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    path.write_bytes(path.read_bytes()[:-cut])
    message = refusal(path)
    assert "truncated: the header says 4 data records" in message
    assert "download it again" in message


def test_an_edf_cut_inside_its_header(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    path.write_bytes(path.read_bytes()[:700])
    assert "no EDF file" in refusal(path)


def test_an_edf_of_unstated_length_is_read_whole(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES, num_records=-1)
    assert read_recording(path).signal.shape == (3, 400)


@pytest.mark.parametrize("suffix", ["edf", "bdf"])
@pytest.mark.parametrize("content", [b"", b"time,Cz\n0,1.5\n" * 200])
def test_text_under_the_name_of_an_edf(tmp_path, suffix, content):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    assert f"no {suffix.upper()} file" in refusal(path)


@pytest.mark.parametrize("suffix", ["set", "gdf", "vhdr", "fif", "xyz", "dat", ""])
def test_text_under_another_name(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_text("time,Cz\n0,1.5\n" * 200)
    assert "suffix is right" in refusal(path)


def test_an_edf_under_the_suffix_of_another_format(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    for suffix in ("bdf", "vhdr", "set"):
        other = tmp_path / f"b.{suffix}"
        shutil.copy(path, other)
        assert "suffix" in refusal(other)


def test_volts_taken_for_microvolts(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(30e-6), NAMES, physical_max=1e-3)
    message = refusal(path)
    assert "channel Fp1" in message
    assert "units='uV', 'mV' or 'V'" in message
    np.testing.assert_allclose(
        read_recording(path, units="V").signal, noise(), atol=0.1
    )


@pytest.mark.parametrize("dimension", ["V", "mV"])
def test_microvolts_that_the_header_calls_volts(tmp_path, dimension):
    signal = noise() * (1 if dimension == "V" else 100)
    options = {"dimension": dimension, "physical_max": 32767}
    path = write_edf(tmp_path / "a.edf", signal, NAMES, **options)
    message = refusal(path)
    assert "the stated unit is wrong" in message
    assert "--data.unit" in message


def test_microvolts_taken_for_volts(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES, dimension="V")
    message = refusal(path)
    assert "channel Fp1" in message
    assert "median deviation of 2.1e+07 uV" in message
    np.testing.assert_allclose(
        read_recording(path, units="uV").signal, noise(), atol=0.1
    )


def test_one_dead_electrode_is_no_matter_of_units(tmp_path):
    signal = noise()
    signal[1] = 0
    path = write_edf(tmp_path / "a.edf", signal, NAMES)
    recording = read_recording(path)
    assert not recording.signal[1].any()
    with pytest.raises(InputError, match=r"a\.edf: missing channels Cz.*flat: Cz"):
        preprocess(recording, DataConfig())


@pytest.mark.parametrize("dimension", ["", "furlong"])
def test_no_unit_is_never_guessed(tmp_path, dimension):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES, dimension=dimension)
    message = refusal(path)
    assert "channel Fp1 (eeg) states no unit" in message
    assert "--data.unit" in message


def test_an_unknown_unit_option(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    with pytest.raises(InputError, match="give uV, mV or V"):
        read_recording(path, units="kV")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e35])
def test_nan(tmp_path, value):
    signal = noise() * 1e-6
    signal[2, 120] = value
    info = mne.create_info(list(NAMES), 100, "eeg")
    raw = mne.io.RawArray(signal, info, verbose="error")
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    message = refusal(tmp_path / "a_raw.fif")
    assert (
        "channel O2 holds NaN or infinite samples, the first at sample 120" in message
    )


def test_gaps_of_a_discontinuous_recording(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES, record_onsets=(0, 1, 7, 8))
    message = refusal(path)
    assert "1 gaps, the first after 1 s" in message
    whole = write_edf(tmp_path / "b.edf", noise(), NAMES, record_onsets=(5, 6, 7, 8))
    assert read_recording(whole).signal.shape == (3, 400)


def test_annotations_without_a_signal(tmp_path):
    path = tmp_path / "a.edf"
    write_edf(path, noise()[:0], (), annotations=[(0, 30, "W")])
    assert "annotations only" in refusal(path)


def wfdb_record(folder, *, num_samples=400, unit="mV"):
    samples = (1000 * np.random.default_rng(0).normal(size=400)).astype("<i2")
    (folder / "r.dat").write_bytes(samples[:num_samples].tobytes())
    checksum = int(samples.astype(np.int64).sum()) & 0xFFFF
    first = int(samples[0])
    line = f"r.dat 16 1000(0)/{unit} 16 0 {first} {checksum} 0 II"
    (folder / "r.hea").write_text(f"r 1 100 400\n{line}\n")
    return folder / "r.hea"


def test_wfdb_records_whole_torn_and_without_their_signal(tmp_path):
    path = wfdb_record(tmp_path)
    assert read_recording(path).signal.shape == (1, 400)
    wfdb_record(tmp_path, num_samples=100)
    assert "WFDB cannot read the record" in refusal(path)
    (tmp_path / "r.dat").unlink()
    assert "WFDB cannot read the record" in refusal(path)


def test_wfdb_without_a_voltage_unit(tmp_path):
    path = wfdb_record(tmp_path, unit="adu")
    assert "channel II (ecg) states no unit" in refusal(path)
    assert read_recording(path, units="mV").units == ("mV",)


def test_real_annotation_files_and_data_halves():
    assert "annotations only" in refusal(real("sleep_edf", "SC4001EC-Hypnogram.edf"))
    assert "annotations only" in refusal(real("ecg_wfdb", "test_edfann.edf"))
    assert "suffix is right" in refusal(real("formats", "eeglab_chan32.locs"))


def test_a_real_file_cut_short(tmp_path):
    content = real("eegmat", "Subject00_2.edf").read_bytes()
    path = tmp_path / "Subject00_2.edf"
    path.write_bytes(content[: len(content) // 2])
    assert "header says 62 data records, the file holds 30" in refusal(path)
