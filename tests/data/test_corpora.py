import zipfile

import numpy as np
import pytest

from eegkd.data import DataConfig, get_corpus
from eegkd.data.recordings.montage import DOUBLE_BANANA
from eegkd.data.recordings.preprocess import preprocess
from eegkd.data.windows.cutting import resolve_config
from eegkd.errors import InputError
from tests.support.edf import write_edf
from tests.support.real import real


def noise(channels, seconds=3, rate=100, seed=0):
    return 30 * np.random.default_rng(seed).normal(size=(channels, seconds * rate))


def test_unknown_corpus_lists_the_known():
    with pytest.raises(
        InputError, match=r"unknown.* arrays, bciciv2a, bids, bonn, .* synthetic\."
    ):
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


def test_scalp_reads_19_of_21_channels(tmp_path):
    for number in range(1, 22):
        if number not in (11, 12):
            (tmp_path / f"ch{number:02d}.inp").write_text(f" {number}\n" * 50_000)
    corpus = get_corpus("scalp")
    (source,) = corpus.list_sources(tmp_path)
    recording = corpus.read(source)
    assert recording.signal[:, 0].tolist() == [*range(1, 11), *range(13, 22)]
    assert recording.channels[-5:] == ("P7", "P8", "Fz", "Cz", "Pz")
    (seizure,) = recording.events
    assert (seizure.onset_s, seizure.label) == (336.6, "seizure")
    assert seizure.onset_s + seizure.duration_s == pytest.approx(450)
    (tmp_path / "ch21.inp").write_text("1\n2\n")
    with pytest.raises(InputError, match=r"ch21\.inp: truncated: 2 samples"):
        corpus.read(source)
    (tmp_path / "ch21.inp").unlink()
    with pytest.raises(InputError, match=r"ch21\.inp: not a file"):
        corpus.read(source)


def test_real_scalp():
    corpus = get_corpus("scalp")
    (source,) = corpus.list_sources(real("seizure_scalp"))
    recording = corpus.read(source)
    assert recording.signal.shape == (19, 50_000)
    before, during = (
        recording.signal[:, s] for s in (slice(30_000), slice(35_000, 45_000))
    )
    assert during.std(axis=1).mean() > 1.5 * before.std(axis=1).mean()


CHB_PAIRS = (
    *("FP1-F7", "F7-T7", "T7-P7", "P7-O1", "FP1-F3", "F3-C3", "C3-P3", "P3-O1"),
    *("FP2-F4", "F4-C4", "C4-P4", "P4-O2", "FP2-F8", "F8-T8", "T8-P8", "P8-O2"),
    *("FZ-CZ", "CZ-PZ", "P7-T7", "T7-FT9", "FT9-FT10", "FT10-T8", "T8-P8"),
)
CHB_REFERENTIAL = (
    *("F7-CS2", "T7-CS2", "P7-CS2", "O1-CS2", "F3-CS2", "C3-CS2", "P3-CS2", "FP1-CS2"),
    *("FP2-CS2", "F4-CS2", "C4-CS2", "P4-CS2", "O2-CS2", "F8-CS2", "T8-CS2"),
    *("P8-CS2", "FZ-CS2", "CZ-CS2", "PZ-CS2"),
)
SUMMARY_01 = """Data Sampling Rate: 256 Hz
*************************

Channels in EDF Files:
**********************
Channel 1: FP1-F7
Channel 2: F7-T7
Channel 23: T8-P8

File Name: chb01_01.edf
File Start Time: 11:42:54
File End Time: 12:42:54
Number of Seizures in File: 0

File Name: chb01_03.edf
File Start Time: 13:43:04
File End Time: 14:43:04
Number of Seizures in File: 1
Seizure Start Time: 3 seconds
Seizure End Time: 5 seconds

Channels changed:
Channel 1: F7-CS2

File Name: chb01_04+.edf
File Start Time: 14:43:12
File End Time: 25:43:12
Number of Seizures in File: 2
Seizure 1 Start Time:  1 seconds
Seizure 1 End Time: 2 seconds
Seizure 2 Start Time: 4 seconds
Seizure 2 End Time:  5 seconds
"""
SUMMARY_21 = """Data Sampling Rate: 256 Hz

File Name: chb21_01.edf
Number of Seizures in File: 1
Seizure Start Time: 2 seconds
Seizure End Time: 3 seconds
"""


@pytest.fixture
def chbmit(tmp_path):
    for case, summary in (("chb01", SUMMARY_01), ("chb21", SUMMARY_21)):
        (tmp_path / case).mkdir()
        (tmp_path / case / f"{case}-summary.txt").write_text(summary)
    electrodes = dict(zip(CHB_REFERENTIAL, noise(19, 6, 256), strict=True))
    place = {name.removesuffix("-CS2"): row for name, row in electrodes.items()}
    place["FT9"], place["FT10"] = noise(2, 6, 256, 1)
    pairs = [place[a] - place[b] for a, b in (pair.split("-") for pair in CHB_PAIRS)]
    for name in ("chb01/chb01_01", "chb01/chb01_03", "chb21/chb21_01"):
        write_edf(tmp_path / f"{name}.edf", np.stack(pairs), CHB_PAIRS, rate=256)
    changed = np.stack(list(electrodes.values()))
    write_edf(tmp_path / "chb01/chb01_04+.edf", changed, CHB_REFERENTIAL, rate=256)
    return tmp_path


def test_chbmit_seizures_persons_and_changing_channels(chbmit):
    corpus = get_corpus("chbmit")
    sources = corpus.list_sources(chbmit)
    ids = ["chb01_01", "chb01_03", "chb01_04+", "chb21_01"]
    assert [s.recording_id for s in sources] == ids
    assert [(s.subject, s.session) for s in sources][2:] == [("01", "01"), ("01", "21")]
    recordings = [corpus.read(s) for s in sources]
    spans = [[(e.onset_s, e.duration_s) for e in r.events] for r in recordings]
    assert spans == [[], [(3, 2)], [(1, 1), (4, 1)], [(2, 1)]]
    assert recordings[0].channels.count("T8-P8") == 1
    assert recordings[0].channels[-1] == "T8-P8-1"
    config = resolve_config(DataConfig(zscore="none"), corpus)
    bipolar, referential = (preprocess(recordings[i], config) for i in (0, 2))
    assert bipolar.signal.shape == (18, 1200)
    assert bipolar.channels == referential.channels == DOUBLE_BANANA
    # The same signals were written as pairs and against the common CS2.
    np.testing.assert_allclose(bipolar.signal, referential.signal, atol=0.3)


def test_chbmit_never_takes_an_unknown_file_for_seizure_free(chbmit):
    corpus = get_corpus("chbmit")
    extra = chbmit / "chb01" / "chb01_99.edf"
    extra.write_bytes((chbmit / "chb01" / "chb01_01.edf").read_bytes())
    with pytest.raises(InputError, match=r"chb01-summary\.txt: no entry for chb01_99"):
        corpus.list_sources(chbmit)
    extra.unlink()
    summary = chbmit / "chb21" / "chb21-summary.txt"
    summary.write_text(SUMMARY_21.replace("File: 1", "File: 2"))
    with pytest.raises(
        InputError, match=r"chb21_01\.edf states 2 seizures and lists 1"
    ):
        corpus.list_sources(chbmit)
    summary.write_text(SUMMARY_21.replace("Time: 3 s", "Time: 300 s"))
    with pytest.raises(InputError, match="ends at 300 s, but the file at 6 s"):
        corpus.read(corpus.list_sources(chbmit)[-1])
    summary.unlink()
    with pytest.raises(InputError, match=r"chb21-summary\.txt: cannot be read"):
        corpus.list_sources(chbmit)


def test_chbmit_split_keeps_one_girl_on_one_side():
    subjects = tuple(f"{i:02d}" for i in range(1, 25) if i != 21)
    split = get_corpus("chbmit").fixed_split(subjects)
    assert split["val"] == ("22",)
    assert split["test"] == ("23", "24")
    assert "01" in split["train"]
    assert len(split["train"]) == 17
    with pytest.raises(InputError, match="--split kfold"):
        get_corpus("chbmit").fixed_split(("01", "02"))
