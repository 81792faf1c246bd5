import zipfile

import numpy as np
import pytest

from eegkd.data import get_corpus
from eegkd.errors import InputError
from tests.data.edf import write_edf
from tests.data.real import real


def noise(channels, seconds=3, rate=100, seed=0):
    return 30 * np.random.default_rng(seed).normal(size=(channels, seconds * rate))


def test_unknown_corpus_lists_the_known():
    with pytest.raises(InputError, match="synthetic, eegmat, bonn, scalp, chbmit, f"):
        get_corpus("tusz")


def test_eegmat_names_classes_and_split(tmp_path):
    for number in (0, 30, 35):
        for task in (1, 2):
            path = tmp_path / f"Subject{number:02d}_{task}.edf"
            write_edf(path, noise(2), ["EEG Fp1", "ECG ECG"], dimension=["uV", "mV"])
    corpus = get_corpus("eegmat")
    sources = corpus.list_sources(tmp_path)
    assert [s.recording_id for s in sources][:2] == ["Subject00_1", "Subject00_2"]
    recording = corpus.read(sources[3])
    (event,) = recording.events
    assert (recording.subject, event.label, event.duration_s) == ("30", "task", 3.0)
    assert recording.channels == ("Fp1", "ECG")
    split = corpus.fixed_split(("00", "30", "35"))
    assert split == {"train": ("00",), "val": ("30",), "test": ("35",)}
    with pytest.raises(InputError, match="--split kfold"):
        corpus.fixed_split(("00", "01"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="SubjectNN_1.edf"):
        corpus.list_sources(tmp_path / "empty")


def test_real_eegmat():
    corpus = get_corpus("eegmat")
    sources = corpus.list_sources(real("eegmat"))
    assert len(sources) == 28
    assert len({s.subject for s in sources}) == 14
    wanted = set(corpus.defaults["channels"])
    for source in sources:
        recording = corpus.read(source)
        assert wanted <= set(recording.channels)
        assert recording.rate == 500
        assert recording.kinds[-1] == "ecg"


def segment(value):
    return "\n".join(str(value + i % 7) for i in range(4097)) + "\n"


def test_bonn_reads_zips_and_folders_alike(tmp_path):
    with zipfile.ZipFile(tmp_path / "n.zip", "w") as archive:
        archive.writestr("__MACOSX/N/._N001.TXT", b"\x00\x05")
        archive.writestr("N/N001.TXT", segment(5))
        archive.writestr("N/readme.md", "no segment")
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "S002.txt").write_text(segment(-3))
    corpus = get_corpus("bonn")
    sources = corpus.list_sources(tmp_path)
    assert [s.recording_id for s in sources] == ["N001", "S002"]
    assert not corpus.has_subjects
    first, second = map(corpus.read, sources)
    assert first.signal[0, :8].tolist() == [5, 6, 7, 8, 9, 10, 11, 5]
    assert second.signal[0, 0] == -3
    assert [r.events[0].label for r in (first, second)] == ["N", "S"]
    assert first.duration_s == pytest.approx(4097 / 173.61)


def test_bonn_refuses_short_and_broken_files(tmp_path):
    corpus = get_corpus("bonn")
    (tmp_path / "Z001.txt").write_text("1\n2\n3\n")
    (tmp_path / "Z002.txt").write_text("1\nx\n")
    short, text = corpus.list_sources(tmp_path)
    with pytest.raises(InputError, match="Z001.txt: truncated.* 3 samples"):
        corpus.read(short)
    with pytest.raises(InputError, match="Z002.txt: not one number a line"):
        corpus.read(text)
    (tmp_path / "z.zip").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(InputError, match=r"z\.zip: not a whole zip"):
        corpus.list_sources(tmp_path)


def test_real_bonn():
    corpus = get_corpus("bonn")
    sources = corpus.list_sources(real("seizure_bonn"))
    labels = [s.info["label"] for s in sources]
    assert {c: labels.count(c) for c in corpus.classes} == dict.fromkeys("ZONFS", 100)
    for source in sources[::25]:
        assert corpus.read(source).signal.shape == (1, 4097)
