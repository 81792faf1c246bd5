"""Files that no reader may be given: pipes, circles, floods, torn ends."""

import gzip
import os
import signal
import struct
import time
import zlib

import mne
import numpy as np
import pytest
import scipy.io

from eegkd.data import read_recording
from eegkd.data.recordings import guard
from eegkd.data.recordings.reading import read_events
from eegkd.errors import InputError
from tests.support.edf import write_edf
from tests.support.gdf import write_gdf

NAMES = ("Fp1", "Cz", "O2")


def noise(seconds=4, rate=100):
    return 30 * np.random.default_rng(0).normal(size=(3, seconds * rate))


def fif(path):
    info = mne.create_info(list(NAMES), 100, "eeg")
    made = mne.io.RawArray(noise() * 1e-6, info, verbose="error")
    made.save(path, verbose="error")
    return path


def refusal(path):
    messages = []
    for read in (read_recording, read_events):
        with pytest.raises(InputError) as caught:
            read(path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert str(path) in messages[0]
    return messages[0]


@pytest.mark.parametrize("name", ["a.edf", "a_raw.fif", "a.hea", "a.vhdr", "a.xyz"])
def test_a_pipe_does_not_block(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert "a pipe or a device, not a file" in refusal(tmp_path / name)


def test_a_part_that_is_no_file_does_not_block(tmp_path):
    head = "r 1 100 400\nr.dat 16 1000(0)/mV 16 0 0 0 0 II\n"
    (tmp_path / "r.hea").write_text(head)
    os.mkfifo(tmp_path / "r.dat")
    assert "r.dat is a pipe" in refusal(tmp_path / "r.hea")
    (tmp_path / "a.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n"
        "DataFile=pipe.eeg\n"
    )
    os.mkfifo(tmp_path / "pipe.eeg")
    assert "pipe.eeg is a pipe" in refusal(tmp_path / "a.vhdr")
    (tmp_path / "b.set").write_bytes(bytes(200))
    (tmp_path / "b.fdt").symlink_to("/dev/zero")
    assert "b.fdt is a pipe, a device" in refusal(tmp_path / "b.set")
    (tmp_path / "c.set").write_bytes(bytes(200) + b"\0b.fdt\0")
    assert "b.fdt is a pipe, a device" in refusal(tmp_path / "c.set")


@pytest.mark.parametrize("number", ["5000000000000", "9" * 5000])
def test_a_brainvision_header_of_more_channels_than_lines(tmp_path, number):
    path = tmp_path / "a.vhdr"
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n"
        f"DataFile=a.eeg\nDataFormat=BINARY\nNumberOfChannels={number}\n"
    )
    assert "which the header has no lines for" in refusal(path)


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "a.edf").symlink_to(tmp_path / "gone.edf")
    assert "a link to a file that is gone" in refusal(tmp_path / "a.edf")
    (tmp_path / "b.edf").symlink_to(tmp_path / "b.edf")
    assert "Check the path" in refusal(tmp_path / "b.edf")
    assert "Check the path" in refusal(tmp_path / ("x" * 300 + ".edf"))


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", denied)
    assert "Permission denied" in refusal(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_fif(tmp_path, share):
    path = fif(tmp_path / "a_raw.fif")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    message = refusal(path)
    assert "cut short" in message or "MNE cannot read it" in message


def test_a_fif_whose_tags_point_backwards(tmp_path):
    path = fif(tmp_path / "a_raw.fif")
    data = bytearray(path.read_bytes())
    data[52:56] = struct.pack(">i", -1)  # no directory: the chain is followed
    path.write_bytes(data)
    np.testing.assert_allclose(read_recording(path).signal, noise(), rtol=1e-4)
    data[48:52] = struct.pack(">i", 20)  # the second tag points at bytes before it
    path.write_bytes(data)
    assert "points backwards" in refusal(path)


@pytest.mark.parametrize("place", [36, 60, 2**30])
def test_a_fif_whose_directory_is_elsewhere(tmp_path, place):
    path = fif(tmp_path / "a_raw.fif")
    data = bytearray(path.read_bytes())
    data[52:56] = struct.pack(">i", place)
    path.write_bytes(data)
    assert "directory" in refusal(path)


@pytest.mark.parametrize("cut", [100, 2000])
def test_a_torn_gzip(tmp_path, cut):
    path = fif(tmp_path / "a_raw.fif")
    packed = tmp_path / "b_raw.fif.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_allclose(read_recording(packed).signal, noise(), rtol=1e-4)
    packed.write_bytes(packed.read_bytes()[:-cut])
    assert "whole" in refusal(packed)


@pytest.mark.parametrize("version", [b"GDF 1.25", b"GDF 2.20"])
def test_a_gdf_of_more_signals_than_it_has_bytes_for(tmp_path, version):
    path = write_gdf(tmp_path / "a.gdf", noise(), NAMES, [(1, 769, 10)])
    assert read_recording(path).channels == NAMES
    data = bytearray(path.read_bytes())
    data[:8] = version
    data[252:256] = struct.pack("<I", 0xEE6B2800)
    if version == b"GDF 2.20":
        data[252:254] = struct.pack("<H", 60_000)
    path.write_bytes(data)
    start = time.perf_counter()
    assert "signals, which the file is too short for" in refusal(path)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("place", [0, 512])
def test_eeglab_of_matlab_7_3_names_the_package(tmp_path, monkeypatch, place):
    head = b"MATLAB 7.3 MAT-file" if place else b""
    path = tmp_path / "a.set"
    path.write_bytes(head.ljust(place) + b"\x89HDF\r\n\x1a\n" + bytes(600))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install pymatreader" in refusal(path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert "MNE cannot read it as .set" in refusal(path)


def test_an_eeglab_file_that_inflates_to_gigabytes(tmp_path):
    path = tmp_path / "a.set"
    content = {"EEG": {"data": np.zeros((4, 2**20), np.float32)}}
    scipy.io.savemat(path, content, do_compression=True)
    data = path.read_bytes()
    inner = bytearray(zlib.decompress(data[136:]))
    inner[4:8] = struct.pack("<I", 2**32 - 8)
    packed = zlib.compress(inner)
    tag = struct.pack("<II", 15, len(packed))
    path.write_bytes(data[:128] + tag + packed)
    assert "The header is damaged" in refusal(path)


def test_a_reader_that_lacks_a_package_names_it(tmp_path):
    with (
        pytest.raises(InputError, match=r"pip install antio\.$"),
        guard.reading(tmp_path, "MNE cannot read it", "Check it."),
    ):
        raise RuntimeError("For ANT to work, the module antio is needed, but it ...")


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Needs an alarm.")
def test_a_reader_that_goes_in_circles_is_stopped(tmp_path, monkeypatch):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    monkeypatch.setattr(guard, "_SECONDS", 1.0)
    monkeypatch.setattr(guard, "_SECONDS_PER_BYTE", 0.0)

    def circle(*args, **kwargs):
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    monkeypatch.setattr(mne.io, "read_raw", circle)
    assert "within 1 s: its parts seem to point at each other" in refusal(path)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


@pytest.mark.parametrize(
    "error",
    [EOFError(), IndexError("3"), UnicodeDecodeError("utf8", b"\xff", 0, 1, "x")],
)
def test_whatever_a_reader_raises_is_an_input_error(tmp_path, monkeypatch, error):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)

    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(mne.io, "read_raw", fails)
    assert "Check that the file is whole" in refusal(path)
