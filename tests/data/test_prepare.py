import dataclasses
import importlib
import os
import resource
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest

from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus, Source
from eegkd.data.recordings.preprocess import preprocess
from eegkd.data.recordings.recording import Event, Recording
from eegkd.data.windows.cutting import (
    config_of,
    cut_windows,
    reference_of,
    resolve_config,
    window_recording,
    zscore_windows,
)
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from tests.support.processes import running
from tests.support.real import real

# The package may export the function under the module's name.
module = importlib.import_module("eegkd.data.windows.prepare")
prepare = module.prepare

FILES = ("signal.npy", "index.npz", "manifest.json")
RATE = 100.0
CHANNELS = ("C3", "C4", "Cz", "Fz", "Pz")


def list_sources(root):
    return tuple(
        Source(
            path.stem, path, subject=path.stem[:2], session=path.stem[3:], info={"n": 1}
        )
        for path in sorted(root.glob("*.npy"))
    )


def read(source):
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    with open(source.path.parent / "reads.log", "a") as log:
        log.write(source.recording_id + "\n")
    x = np.load(source.path)
    return Recording(
        signal=x,
        channels=CHANNELS,
        kinds=("eeg",) * 5,
        units=("uV",) * 5,
        rate=RATE,
        events=(Event(onset_s=8.0, duration_s=9.0, label="seizure"),),
        subject=source.subject,
        session=source.session,
        source=str(source.path),
    )


TOY = Corpus(
    name="toy",
    classes=("background", "seizure"),
    background="background",
    list_sources=list_sources,
    read=read,
    defaults={"rate": RATE, "band": (1.0, 40.0), "overlap": 0.5},
    licence="none",
)


def write_corpus(root, num=6):
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(num):
        x = rng.normal(scale=30, size=(5, 3000 + 200 * i)).astype(np.float32)
        np.save(root / f"s{i // 2}_{i % 2}.npy", x)
    return DataConfig(corpus="toy", root=str(root), workers=1)


@pytest.fixture
def config(tmp_path, monkeypatch):
    use(monkeypatch, TOY)
    return write_corpus(tmp_path / "corpus")


def use(monkeypatch, corpus):
    monkeypatch.setattr(module, "get_corpus", lambda name, root="", **options: corpus)


def contents(folder):
    return [(folder / name).read_bytes() for name in FILES]


def reads(config):
    log = Path(config.root) / "reads.log"
    return log.read_text().split() if log.exists() else []


def test_a_store_holds_what_plain_calls_give(config, tmp_path):
    store = prepare(config, tmp_path / "out", progress=False)
    full = resolve_config(config, TOY)
    assert (full.rate, full.overlap, full.window_s) == (RATE, 0.5, 4.0)
    for source in list_sources(Path(config.root)):
        recording = preprocess(read(source), full)
        windows = zscore_windows(
            cut_windows(
                recording,
                window_s=4.0,
                overlap=0.5,
                classes=TOY.classes,
                background="background",
                positive_fraction=0.5,
            ),
            recording,
        )
        rows = store.recording_rows(source.recording_id)
        np.testing.assert_array_equal(store.signal[rows], windows.signal)
        np.testing.assert_array_equal(store.index["start_s"][rows], windows.start_s)
        np.testing.assert_array_equal(store.labels[rows], windows.label)
        np.testing.assert_array_equal(store.index["on_grid"][rows], windows.on_grid)
        assert set(store.index["subject"][rows]) == {source.subject}
        assert set(store.index["session"][rows]) == {source.session}
    assert set(store.labels) == {0, 1}
    assert store.subjects.names == ("s0", "s1", "s2")
    said = store.manifest
    assert said["recordings"]["s1_0"]["events"][0]["label"] == "seizure"
    assert said["recordings"]["s1_0"]["duration_s"] == 34.0
    assert set(said["sources"]) == {f"s{i}_{j}.npy" for i in range(3) for j in (0, 1)}
    assert said["units"] == ["zscore"] * 5
    assert said["preprocessing"]["band"] == [1.0, 40.0]
    assert config.root not in (tmp_path / "out" / "manifest.json").read_text()
    assert not list(tmp_path.glob("*.partial"))


def test_a_recording_alone_is_windowed_as_in_its_store(config, tmp_path):
    store = prepare(config, tmp_path / "out", progress=False)
    again = config_of(store.manifest)
    resolved = resolve_config(config, TOY)
    assert again == dataclasses.replace(resolved, root="", workers=0)
    source = list_sources(Path(config.root))[2]
    raw = dataclasses.replace(
        read(source), events=(Event(onset_s=0.0, duration_s=9.0, label="T0"),)
    )
    windows, recording = window_recording(raw, again)
    rows = store.recording_rows(source.recording_id)
    np.testing.assert_array_equal(windows.signal, store.signal[rows])
    assert set(windows.label) == {-1}
    assert recording.units == ("zscore",) * 5
    assert store.manifest["background"] == "background"


def test_a_finished_store_is_opened_and_another_config_refused(config, tmp_path):
    out = tmp_path / "out"
    prepare(config, out, progress=False)
    before = reads(config)
    same = dataclasses.replace(config, workers=2, seed=5, world="null")
    again = prepare(same, out, progress=False)
    assert isinstance(again, WindowStore)
    assert reads(config) == before
    other = dataclasses.replace(config, window_s=2.0)
    with pytest.raises(
        InputError, match=r"out holds a store with window_s=4\.0, not 2"
    ):
        prepare(other, out, progress=False)
    os.remove(Path(config.root) / "s0_0.npy")
    with pytest.raises(InputError, match="made from other recordings"):
        prepare(config, out, progress=False)


def test_windows_drawn_by_another_version_are_refused(config, monkeypatch, tmp_path):
    use(monkeypatch, TOY._replace(needs_root=False))
    prepare(config, tmp_path / "out", progress=False)
    program = Path(config.root) / "s0_0.npy"
    program.write_bytes(b"another")
    with pytest.raises(InputError, match=f"another version of {program}.* or go on"):
        prepare(config, tmp_path / "out", progress=False)


def test_a_bad_recording_stops_it_and_the_rerun_reads_only_what_is_left(
    config, tmp_path
):
    want = tmp_path / "want"
    prepare(config, want, progress=False)
    bad = Path(config.root) / "s2_0.npy"
    good = bad.read_bytes()
    np.save(bad, np.zeros((5, 50), np.float32))
    out = tmp_path / "out"
    with pytest.raises(InputError, match="s2_0"):
        prepare(config, out, progress=False)
    assert not out.exists()
    with pytest.raises(InputError, match="again to resume"):
        WindowStore.open(out)
    bad.write_bytes(good)
    before = len(reads(config))
    prepare(config, out, progress=False)
    assert reads(config)[before:] == ["s2_0", "s2_1"]
    assert contents(out) == contents(want)
    assert not list(tmp_path.glob("*.partial"))


def test_a_changed_file_or_setting_is_not_taken_from_an_old_part(config, tmp_path):
    bad = Path(config.root) / "s2_1.npy"
    good = bad.read_bytes()
    np.save(bad, np.zeros((5, 50), np.float32))
    with pytest.raises(InputError):
        prepare(config, tmp_path / "out", progress=False)
    bad.write_bytes(good)
    other = dataclasses.replace(config, band=(2.0, 30.0))
    store = prepare(other, tmp_path / "out", progress=False)
    fresh = prepare(other, tmp_path / "fresh", progress=False)
    np.testing.assert_array_equal(store.signal, fresh.signal)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_the_bytes_do_not_depend_on_workers_or_backend(config, tmp_path, backend):
    prepare(config, tmp_path / "one", progress=False)
    with joblib.parallel_config(backend=backend):
        two = dataclasses.replace(config, workers=2)
        prepare(two, tmp_path / "two", progress=False)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import tests.data.test_prepare as t
t.module.get_corpus = lambda name, root="", **options: t.TOY
config = t.DataConfig(corpus="toy", root=sys.argv[2], workers=1)
t.prepare(config, sys.argv[3], progress=False)
"""


def test_killed_in_the_middle_and_resumed_gives_the_same_bytes(config, tmp_path):
    want, out = tmp_path / "want", tmp_path / "out"
    prepare(config, want, progress=False)
    before = len(reads(config))
    here = str(Path(__file__).parents[2])
    parts = out.with_name("out.partial")
    command = [sys.executable, "-c", CHILD, here, config.root, str(out)]
    with running(command, env={**os.environ, "TOY_SLEEP": "1"}) as child:
        deadline = time.monotonic() + 60
        while len(list(parts.glob("*.json"))) < 2:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    done = len(list(parts.glob("*.json")))
    assert not out.exists()
    middle = len(reads(config))
    assert middle - before < 6
    prepare(config, out, progress=False)
    assert len(reads(config)) - middle == 6 - done
    assert contents(out) == contents(want)


def test_a_full_disk_is_one_message_and_nothing_that_reads_as_a_store(config, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (10_000, 200_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(InputError, match=r"Cannot write to .*out"):
                prepare(config, tmp_path / "out", progress=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.rglob("*.tmp"))
        assert not list(tmp_path.glob("*.writing"))
    prepare(config, tmp_path / "out", progress=False)


def test_an_output_that_cannot_be_a_folder_is_refused(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write to"):
        prepare(config, tmp_path / "file" / "out", progress=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(config, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="Permission denied"):
        prepare(config, tmp_path / "locked" / "out", progress=False)


def test_recordings_that_do_not_fit_together_are_refused(config, tmp_path, monkeypatch):
    def read_less(source):
        recording = read(source)
        if source.recording_id == "s1_0":
            names = (*CHANNELS[:4], "P3")
            return dataclasses.replace(recording, channels=names)
        return recording

    use(monkeypatch, TOY._replace(read=read_less))
    with pytest.raises(InputError, match=r"s1_0\.npy: channels .* --data\.channels"):
        prepare(config, tmp_path / "out", progress=False)


def test_the_averaged_electrodes_are_named_in_the_manifest(config, tmp_path):
    x = np.load(Path(config.root) / "s0_0.npy")
    x[1] = 5.0
    np.save(Path(config.root) / "s0_0.npy", x)
    wanted = dataclasses.replace(config, channels=CHANNELS[2:], montage="average")
    store = prepare(wanted, tmp_path / "out", progress=False)
    assert store.manifest["reference"] == [CHANNELS[0], *CHANNELS[2:], CHANNELS[1]]
    said = store.manifest["recordings"]
    assert said["s0_0"]["not_in_reference"] == [CHANNELS[1]]
    assert said["s0_1"]["not_in_reference"] == []
    assert store.manifest["preprocessing"]["average_of"] == "scalp"
    always = (CHANNELS[0], *CHANNELS[2:])
    assert reference_of(store.manifest) == ((*always, CHANNELS[1]), always)
    # A store that does not say so is of the time when the kept channels were averaged.
    old = {k: v for k, v in store.manifest.items() if k != "reference"}
    assert reference_of(old) == (CHANNELS[2:], CHANNELS[2:])
    wanted = dataclasses.replace(wanted, montage="referential")
    plain = prepare(wanted, tmp_path / "plain", progress=False).manifest
    assert reference_of(plain) is None
    assert "average_of" not in plain["preprocessing"]
    assert "reference" not in plain
    assert "not_in_reference" not in plain["recordings"]["s0_0"]


@pytest.mark.parametrize("policy", ["mask", "interpolate"])
def test_filled_channels_are_named_in_the_manifest(config, tmp_path, policy):
    x = np.load(Path(config.root) / "s0_0.npy")
    x[1] = 5.0
    np.save(Path(config.root) / "s0_0.npy", x)
    wanted = dataclasses.replace(config, policy=policy, channels=CHANNELS)
    store = prepare(wanted, tmp_path / "out", progress=False)
    said = store.manifest["recordings"]
    assert said["s0_0"]["filled_channels"] == ["C4"]
    assert said["s0_1"]["filled_channels"] == []
    filled = store.signal[store.recording_rows("s0_0"), 1]
    assert filled.any() == (policy == "interpolate")
    with pytest.raises(InputError, match="C4"):
        prepare(
            dataclasses.replace(wanted, policy="error"),
            tmp_path / "error",
            progress=False,
        )


def test_splits_of_the_corpus_reach_the_manifest(config, tmp_path, monkeypatch):
    use(monkeypatch, TOY._replace(fixed_split=lambda names: {"train": names[:2]}))
    store = prepare(config, tmp_path / "one", progress=False)
    assert store.manifest["split"] == {"train": ["s0", "s1"]}
    assert "task" not in store.manifest

    def incomplete(names):
        raise InputError("half of it is missing")

    corpus = TOY._replace(fixed_split=incomplete, student_subjects=("s1",))
    corpus = corpus._replace(facts=lambda: {"bayes": {"accuracy": 0.9}})
    corpus = corpus._replace(task={"metrics": ["kappa"]})
    use(monkeypatch, corpus)
    store = prepare(config, tmp_path / "two", progress=False)
    assert store.manifest["split"] == {"error": "half of it is missing"}
    assert set(store.index["subject"][store.student_labels >= 0]) == {"s1"}
    assert store.manifest["bayes"] == {"accuracy": 0.9}
    assert store.manifest["task"] == {"metrics": ["kappa"]}


def test_no_recordings_is_an_error(config, tmp_path, monkeypatch):
    use(monkeypatch, TOY._replace(list_sources=lambda root: ()))
    with pytest.raises(InputError, match="no toy recordings"):
        prepare(config, tmp_path / "out", progress=False)


def test_the_estimate_is_near_the_truth(config, tmp_path):
    guess = module.estimate(config)
    store = prepare(config, tmp_path / "out", progress=False)
    assert guess.num_recordings == 6
    assert abs(guess.num_bytes / store.signal.nbytes - 1) < 0.2
    assert guess.seconds > 0


def test_eegmat_becomes_a_store(tmp_path):
    root = tmp_path / "eegmat"
    root.mkdir()
    for file in sorted(real("eegmat").rglob("*.edf"))[:4]:
        (root / file.name).symlink_to(file)
    store = prepare(
        DataConfig(corpus="eegmat", root=str(root), workers=1),
        tmp_path / "out",
        progress=False,
    )
    assert store.signal.shape[1:] == (19, 800)
    assert len(store.subjects.names) == 2
    assert set(store.labels) == {0, 1}
    np.testing.assert_allclose(store.signal.std(axis=2), 1, rtol=1e-3)
