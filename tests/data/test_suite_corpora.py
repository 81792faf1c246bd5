"""The corpora of CBraMod's suite, on small files in their exact layout."""

import re
import shutil

import numpy as np
import pytest
from scipy.io import savemat

from eegkd.data import DataConfig, get_corpus
from eegkd.data.recordings.montage import DOUBLE_BANANA
from eegkd.data.windows.cutting import resolve_config
from eegkd.data.windows.prepare import prepare
from eegkd.errors import InputError
from tests.support.edf import write_edf
from tests.support.gdf import write_gdf
from tests.support.real import real


def noise(channels, num, seed=0):
    return 20 * np.random.default_rng(seed).normal(size=(channels, num))


def waves(channels, num, rate, seed=0):
    """Rhythms from 2 to 30 Hz: what every corpus' band lets pass."""
    rng = np.random.default_rng(seed)
    hertz, phase = (
        rng.uniform(2, 30, (8, channels, 1)),
        rng.uniform(0, 7, (8, channels, 1)),
    )
    return 8 * np.sin(2 * np.pi * hertz * np.arange(num) / rate + phase).sum(axis=0)


def assert_equal_at(ours, theirs, rates, start_s, tolerance):
    """Compares windows of 4 s at 200 Hz with what they were cut from."""
    seconds = np.arange(0.1, 3.9, 0.1)
    columns = np.rint((start_s + seconds) * rates).astype(int)
    np.testing.assert_allclose(
        ours[:, np.rint(seconds * 200).astype(int)],
        theirs[:, columns],
        atol=tolerance,
    )


def store_of(name, root, out, **options):
    config = DataConfig(
        corpus=name, root=str(root), workers=1, zscore="none", **options
    )
    return prepare(config, out, progress=False)


# EEGMMIDB pads its names with dots, and marks rest (T0) between trials.
PHYSIONET = tuple(
    name.ljust(4, ".")
    for name in re.findall(
        r"\w+",
        "Fc5 Fc3 Fc1 Fcz Fc2 Fc4 Fc6 C5 C3 C1 Cz C2 C4 C6 Cp5 Cp3 Cp1 Cpz Cp2 Cp4 Cp6 "
        "Fp1 Fpz Fp2 Af7 Af3 Afz Af4 Af8 F7 F5 F3 F1 Fz F2 F4 F6 F8 Ft7 Ft8 T7 T8 T9 "
        "T10 Tp7 Tp8 P7 P5 P3 P1 Pz P2 P4 P6 P8 Po7 Po3 Poz Po4 Po8 O1 Oz O2 Iz",
    )
)
MARKS = ((0, 4.2, "T0"), (4.2, 4.1, "T2"), (8.3, 4.2, "T0"), (12.5, 4.1, "T1"))


@pytest.fixture(scope="module")
def eegmmidb(tmp_path_factory):
    root = tmp_path_factory.mktemp("eegmmidb") / "files"
    (root / "S001").mkdir(parents=True)
    signal = waves(64, 160 * 28, 160)
    write_edf(
        root / "S001" / "S001R04.edf", signal, PHYSIONET, rate=160, annotations=MARKS
    )
    write_edf(
        *(root / "S001" / "S001R06.edf", noise(64, 128 * 18), PHYSIONET),
        rate=128,
        annotations=(*MARKS, (16.6, 4.1, "T2")),
    )
    for other in ("S001R03.edf", "S001R04.edf.event"):
        (root / "S001" / other).write_bytes(b"not read")
    return root, signal


def test_eegmmidb_cuts_the_imagined_trials(eegmmidb, tmp_path):
    root, signal = eegmmidb
    store = store_of("eegmmidb", root, tmp_path / "store")
    # The last T2 of run 6 does not last until the recording ends.
    assert store.signal.shape == (4, 64, 800)
    names = [store.classes[label] for label in store.labels]
    assert names == ["right_fist", "left_fist", "both_feet", "both_fists"]
    np.testing.assert_allclose(store.index["start_s"], [4.2, 12.5] * 2, atol=1e-9)
    assert store.index["on_grid"].all()
    assert store.manifest["channels"][:2] == ["FC5", "FC3"]
    assert set(store.manifest["units"]) == {"uV"}
    assert "--split kfold" in store.manifest["split"]["error"]
    # The average of all electrodes is 0; what passed is the recording's.
    np.testing.assert_allclose(store.signal[0].mean(axis=0), 0, atol=0.05)
    # At 12.5 s both rates have a sample.
    whole = signal - signal.mean(axis=0)
    assert_equal_at(store.signal[1], whole, 160, 12.5, 1.5)


def test_eegmmidb_refuses_other_files_and_options(eegmmidb, tmp_path):
    root, _ = eegmmidb
    with pytest.raises(
        InputError, match="overlap 0.5: eegmmidb has one window a trial"
    ):
        store_of("eegmmidb", root, tmp_path / "store", overlap=0.5)
    with pytest.raises(InputError, match=r"none of its 3 trials .* --data.window_s"):
        store_of("eegmmidb", root, tmp_path / "store", window_s=15.0)
    strange = tmp_path / "S002R08.edf"
    write_edf(strange, noise(1, 400), ["C3"], annotations=[(1, 2, "T1"), (1, 2, "T5")])
    corpus = get_corpus("eegmmidb")
    (source,) = corpus.list_sources(tmp_path)
    with pytest.raises(InputError, match=r"S002R08\.edf: marks T5"):
        corpus.read(source)
    write_edf(strange, noise(1, 400), ["C3"])
    with pytest.raises(InputError, match="marks T1 and T2 are missing"):
        corpus.read(source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"S001R04\.edf"):
        corpus.list_sources(tmp_path / "empty")


def test_numbered_splits_are_the_published_ones():
    people = tuple(f"{i:03d}" for i in range(1, 110))
    split = get_corpus("eegmmidb").fixed_split(people)
    assert [len(split[part]) for part in ("train", "val", "test")] == [70, 19, 20]
    assert (split["val"][0], split["test"][-1]) == ("071", "109")
    split = get_corpus("bciciv2a").fixed_split(tuple(f"A{i:02d}" for i in range(1, 10)))
    assert split["train"][-1] == "A05"
    assert (split["val"], split["test"]) == (("A06", "A07"), ("A08", "A09"))
    with pytest.raises(InputError, match="A06 or A07"):
        get_corpus("bciciv2a").fixed_split(("A01", "A08"))


def test_real_eegmmidb():
    corpus = get_corpus("eegmmidb")
    sources = corpus.list_sources(real("mi_eegmmidb"))
    assert [s.recording_id[-3:] for s in sources] == ["R04", "R06", "R08", "R12"]
    recording = corpus.read(sources[1])
    assert recording.channels == corpus.defaults["channels"]
    labels = [event.label for event in recording.events]
    assert len(labels) == 15
    assert set(labels) == {"both_fists", "both_feet"}


# As the GDF files name them: MNE numbers the equal ones.
GRAZ = (
    *("EEG-Fz", *["EEG"] * 6, "EEG-C3", "EEG", "EEG-Cz", "EEG", "EEG-C4"),
    *(*["EEG"] * 7, "EEG-Pz", "EEG", "EEG", "EOG-left", "EOG-central", "EOG-right"),
)
STARTS = (500, 2500, 4600)
START, UNKNOWN, REJECTED, EYES, RUN = 768, 783, 1023, 276, 32766


def graz_events(cues):
    events = [(0, EYES, 400), (450, RUN, 1)]
    for start, cue in zip(STARTS, cues, strict=True):
        events += [(start, START, 1875), (start + 500, cue, 313)]
    return [*events, (STARTS[1], REJECTED, 1875)]


@pytest.fixture
def bciciv2a(tmp_path):
    """Two days of one person, a gap between runs, labels in a folder of their own."""
    signal = waves(25, 8500, 250)
    signal[:, 4450:4550] = np.nan
    for day, cues in (("T", (772, 769, 771)), ("E", (UNKNOWN,) * 3)):
        write_gdf(tmp_path / f"A01{day}.gdf", signal, GRAZ, graz_events(cues))
    (tmp_path / "true_labels").mkdir()
    labels = np.array([[2], [4], [1]], np.uint8)
    savemat(tmp_path / "true_labels" / "A01E.mat", {"classlabel": labels})
    return tmp_path, signal


def test_bciciv2a_takes_classes_from_cues_and_from_the_true_labels(bciciv2a, tmp_path):
    root, signal = bciciv2a
    store = store_of("bciciv2a", root, tmp_path / "out" / "store")
    assert store.signal.shape == (6, 22, 800)
    names = [store.classes[label] for label in store.labels]
    second = ["right_hand", "tongue", "left_hand"]
    assert names == [*second, "tongue", "left_hand", "feet"]
    assert store.index["session"].tolist() == ["E"] * 3 + ["T"] * 3
    assert store.subjects.names == ("A01",)
    # From the cue on, 2 s after the trial's start.
    wanted = [(start + 500) / 250 for start in STARTS]
    np.testing.assert_allclose(store.index["start_s"], wanted * 2)
    assert store.manifest["channels"][:4] == ["Fz", "FC3", "FC1", "FCz"]
    # The gap's -100 uV in every channel do not reach the trial behind it.
    whole = signal[:22] - signal[:22].mean(axis=0)
    assert_equal_at(store.signal[2], whole, 250, wanted[2], 2.0)


def test_bciciv2a_bridges_the_gap_between_runs(bciciv2a):
    root, signal = bciciv2a
    corpus = get_corpus("bciciv2a")
    recording = corpus.read(corpus.list_sources(root)[1])
    ends = signal[:22, [4449, 4550]]
    between = recording.signal[:, 4450:4550]
    assert (between >= ends.min(axis=1, keepdims=True) - 0.1).all()
    assert (between <= ends.max(axis=1, keepdims=True) + 0.1).all()
    np.testing.assert_allclose(
        recording.signal[:, :4450], signal[:22, :4450], atol=0.01
    )


def test_bciciv2a_says_what_is_wrong(bciciv2a):
    root, signal = bciciv2a
    corpus = get_corpus("bciciv2a")
    second = corpus.list_sources(root)[0]
    assert second.session == "E"
    labels = root / "true_labels" / "A01E.mat"
    savemat(labels, {"data": np.zeros(3)})
    with pytest.raises(InputError, match=r"A01E\.mat: `classlabel` holds 0 numbers"):
        corpus.read(second)
    savemat(labels, {"classlabel": np.array([1, 2, 5])})
    with pytest.raises(InputError, match="3 trials, each of 1 to 4"):
        corpus.read(second)
    labels.write_bytes(b"torn" * 50)
    with pytest.raises(InputError, match=r"A01E\.mat: no MAT file"):
        corpus.read(second)
    labels.unlink()
    with pytest.raises(InputError, match=r"no A01E\.mat below .*true_labels\.zip"):
        corpus.read(corpus.list_sources(root)[0])
    first = corpus.list_sources(root)[1]
    write_gdf(first.path, signal[:, :4000], GRAZ, [(0, EYES, 400)])
    with pytest.raises(InputError, match=r"A01T\.gdf: no cues"):
        corpus.read(first)
    broken = signal.copy()
    broken[:, 1100:1120] = np.nan
    write_gdf(first.path, broken, GRAZ, graz_events((772, 769, 771)))
    with pytest.raises(InputError, match="missing in the trial at 4 s"):
        corpus.read(first)
    write_gdf(first.path, signal[:3], GRAZ[:3], [(0, 769, 1)])
    with pytest.raises(InputError, match="channels EEG-Fz, EEG, EEG-1, where"):
        corpus.read(first)


LINKED_EARS = (
    *("Fp1", "F3", "C3", "P3", "O1", "F7", "T3", "T5", "Fz", "Fp2", "F4", "C4"),
    *("P4", "O2", "F8", "T4", "T6", "Cz", "Pz"),
)
MUMTAZ = (*(f"EEG {x}-LE" for x in LINKED_EARS), "EEG A2-A1", "EEG 23A-23R")


def mumtaz(root, name, seed):
    signal = noise(len(MUMTAZ), 256 * 6, seed)
    return write_edf(root / f"{name}.edf", signal, MUMTAZ, rate=256)


def test_mumtaz_names_classes_and_copies(tmp_path):
    root = tmp_path / "files"
    root.mkdir()
    for seed, name in enumerate(("H S1 EC", "H S1 EO", "MDD S1  EO", "H S30 EC")):
        mumtaz(root, name, seed)
    mumtaz(root, "MDD S1 TASK", 9)
    shutil.copy(root / "H S1 EO.edf", root / "6921143_H S15 EO.edf")
    # One recording under two names: one person, whose other file stays.
    shutil.copy(root / "H S30 EC.edf", root / "H S27 EC.edf")
    mumtaz(root, "H S27 EO", 8)
    store = store_of("mumtaz2016", root, tmp_path / "store")
    assert store.classes == ("healthy", "depressed")
    assert set(store.manifest["recordings"]) == {
        *("6921143_H S15 EO", "H S1 EC", "H S27 EC", "H S27 EO", "MDD S1  EO")
    }
    people = {k: v["subject"] for k, v in store.manifest["recordings"].items()}
    assert people["6921143_H S15 EO"] == people["H S1 EC"] == "H15"
    assert people["H S27 EC"] == people["H S27 EO"] == "H27"
    assert store.signal.shape == (5, 19, 1000)
    assert store.manifest["channels"][:3] == ["Fp1", "Fp2", "F3"]
    assert store.labels[store.index["subject"] == "MDD01"].tolist() == [1]
    shutil.copy(root / "H S1 EC.edf", root / "MDD S5 EC.edf")
    with pytest.raises(InputError, match=r"MDD S5 EC\.edf .* of the other class"):
        get_corpus("mumtaz2016", root)
    with pytest.raises(InputError, match="no 'H S1 EC.edf'"):
        get_corpus("mumtaz2016", tmp_path / "store")


def test_mumtaz_split_keeps_people_on_one_side(tmp_path):
    for group, num in (("H", 28), ("MDD", 30)):
        for person in range(1, num + 1):
            for eyes in ("EC", "EO"):
                path = tmp_path / f"{group} S{person} {eyes}.edf"
                path.write_bytes(f"{path.name}".encode() * 20)
    (tmp_path / "H S2 EC.edf").unlink()
    corpus = get_corpus("mumtaz2016", tmp_path)
    people = tuple(dict.fromkeys(s.subject for s in corpus.list_sources(tmp_path)))
    split = corpus.fixed_split(people)
    names = sorted(path.name for path in tmp_path.iterdir() if path.name[0] == "H")
    by_file = {x: set() for x in split}
    for index, name in enumerate(names):
        part = "train" if index < 40 else "val" if index < 48 else "test"
        by_file[part].add(f"H{int(name.split()[1][1:]):02d}")
    both = by_file["val"] & by_file["test"]
    assert len(both) == 1  # the published list has one person on two sides here
    healthy = {part: {x for x in who if x[0] == "H"} for part, who in split.items()}
    assert healthy["train"] == by_file["train"]
    assert healthy["val"] == by_file["val"] - by_file["train"]
    assert healthy["test"] == by_file["test"] - both
    assert len(split["train"] + split["val"] + split["test"]) == len(people)
    for path in tmp_path.glob("* S[3-9] *"):
        path.unlink()
    corpus = get_corpus("mumtaz2016", tmp_path)
    people = tuple(s.subject for s in corpus.list_sources(tmp_path))
    with pytest.raises(InputError, match="this copy has fewer"):
        corpus.fixed_split(people)


def test_mentalarithmetic_is_eegmat_as_the_suite_has_it(tmp_path):
    root = tmp_path / "files"
    root.mkdir()
    eegmat = get_corpus("eegmat").defaults["channels"]
    labels = [f"EEG {name}" for name in (*eegmat, "A2-A1")]
    slow = 40 * np.sin(0.6 * np.arange(500 * 11) / 500) + 25
    signal = waves(20, 500 * 11, 500) + slow
    for task in (1, 2):
        write_edf(root / f"Subject00_{task}.edf", signal, labels, rate=500)
    store = store_of("mentalarithmetic", root, tmp_path / "store")
    assert store.signal.shape == (4, 20, 1000)
    assert store.manifest["channels"][-1] == "A2-A1"
    assert store.labels.tolist() == [0, 0, 1, 1]
    # Nothing is filtered: offset and drift stay.
    assert_equal_at(store.signal[1], signal, 500, 5.0, 0.2)


@pytest.mark.parametrize("name", ["mentalarithmetic", "eegmmidb", "bciciv2a"])
def test_defaults_fit_the_foundation_models(name):
    config = resolve_config(DataConfig(), get_corpus(name))
    assert config.rate == 200
    assert config.window_s == int(config.window_s)
    assert config.channels
    assert config.channels != DOUBLE_BANANA
