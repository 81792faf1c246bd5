"""A BIDS data set against mne-bids: what it writes is read, and read alike."""

import warnings

import numpy as np
import pytest

from tests.support.bids import (
    NAMES,
    make,
    noise,
    put_channels,
    put_events,
    read_one,
    spans,
)
from tests.support.edf import write_edf

pytestmark = pytest.mark.parity
mne = pytest.importorskip("mne")
mne_bids = pytest.importorskip("mne_bids")


def test_what_mne_bids_writes_is_read(tmp_path):

    signal = noise()
    marks = [(1.0, 4.0, "left"), (7.0, 4.0, "right"), (12.0, 2.0, "BAD_move")]
    source = write_edf(tmp_path / "source.edf", signal, NAMES, annotations=marks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = mne.io.read_raw(source, verbose="error")
        raw.set_channel_types({"EOG1": "eog"}, on_unit_change="ignore")
        raw.info["bads"] = ["Cz"]
        raw.info["line_freq"] = 50
        place = mne_bids.BIDSPath(
            subject="01", session="a", task="x", root=tmp_path / "bids", datatype="eeg"
        )
        mne_bids.write_raw_bids(raw, place, verbose="error")
    corpus, recording = read_one(tmp_path / "bids", notch=50.0)
    assert corpus.classes == ("left", "right")
    assert spans(recording) == [(1, 4, "left"), (7, 4, "right")]
    assert [(s.onset_s, s.reason) for s in recording.bad_spans] == [(12, "BAD_move")]
    assert recording.kinds == ("eeg", "eeg", "eog")
    assert recording.bad_channels == ("Cz",)
    assert (recording.subject, recording.session) == ("01", "a")
    np.testing.assert_allclose(recording.signal, signal, atol=0.1)


def test_a_data_set_is_read_as_mne_bids_reads_it(tmp_path):

    file = make(tmp_path, names=("Fz", "X1", "Cz"))
    put_events(file, (1, 4, "left"), (7.25, 0.5, "right"), (9, 4, "n/a"))
    put_channels(
        file,
        ("Fz", "EEG", "uV", "good"),
        ("X1", "ECG", "uV", "bad"),
        ("Cz", "EEG", "uV", "bad"),
    )
    _, recording = read_one(tmp_path, window_s=0.5)
    place = mne_bids.BIDSPath(subject="01", task="x", root=tmp_path, datatype="eeg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = mne_bids.read_raw_bids(place, verbose="error")
        volts = raw.get_data(verbose="error")
    np.testing.assert_allclose(recording.signal[::2], 1e6 * volts[::2], atol=1e-3)
    np.testing.assert_allclose(recording.signal[1], 1e3 * volts[1], atol=1e-6)
    assert list(recording.kinds) == raw.get_channel_types()
    assert list(recording.bad_channels) == raw.info["bads"]
    rows = zip(
        raw.annotations.onset,
        raw.annotations.duration,
        raw.annotations.description,
        strict=True,
    )
    assert spans(recording) == list(rows)
