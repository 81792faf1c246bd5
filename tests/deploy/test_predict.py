import dataclasses

import jax
import numpy as np
import pytest

from eegkd.cli import main
from eegkd.data.batches.maker import fit_train_zscore
from eegkd.data.recordings.filtering import look_ahead_s
from eegkd.data.recordings.reading import read_recording
from eegkd.data.windows.cutting import config_of, window_recording
from eegkd.data.windows.folds import make_folds
from eegkd.deploy.card import make_card
from eegkd.deploy.inputs import Subject, list_inputs
from eegkd.deploy.load import load_model, open_store
from eegkd.deploy.predict import predict, window_table
from eegkd.errors import InputError
from eegkd.evaluate.szcore import read_szcore_tsv
from eegkd.systems import distilclip_eeg, predict_fn
from eegkd.systems.entry import find
from eegkd.systems.signal import signal_of
from tests.support.edf import write_edf
from tests.support.presets import TINY
from tests.support.recordings import NAMES, SEIZURE, noise, write_folder
from tests.support.untrained_runs import DATA, make_run, read_config


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    make_run(folder / "run", write_folder(folder / "mine"))
    return folder


@pytest.fixture(scope="module")
def config(place):
    return read_config(place / "run")


@pytest.fixture(scope="module")
def model(config):
    return load_model(distilclip_eeg.make_system, config)


def subject_of(place, name="p1", **changes):
    recording = read_recording(place / "mine" / f"{name}.edf")
    return Subject(name, dataclasses.replace(recording, **changes), frozenset())


def test_windows_are_those_of_the_store_and_probabilities_the_models_own(
    place, config, model
):
    found = predict(model, subject_of(place), config, {})
    store = open_store(config)
    rows = store.recording_rows("p1.edf", on_grid=True)
    np.testing.assert_array_equal(found.windows.start_s, store.index["start_s"][rows])
    system = distilclip_eeg.make_system(
        dataclasses.replace(config, signal=signal_of(store))
    )
    run = jax.jit(predict_fn(system, "student"))
    want = run(model.variables, {"signal": np.asarray(store.signal[rows])})
    np.testing.assert_allclose(found.windows.prob, want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.track.prob, want[:, 1], rtol=1e-4, atol=1e-6)


def test_labels_and_order_of_channels_do_not_reach_the_model(place, config, model):
    plain = predict(model, subject_of(place), config, {})
    raw = read_recording(place / "mine" / "p1.edf")
    turned = dataclasses.replace(
        raw,
        signal=raw.signal[::-1].copy(),
        channels=raw.channels[::-1],
        events=(),
    )
    other = predict(model, Subject("p1", turned, frozenset()), config, {})
    np.testing.assert_array_equal(plain.windows.prob, other.windows.prob)


def test_a_recording_of_another_rate_is_brought_to_the_models(place, config, model):
    path = write_edf(place / "fast.edf", noise(rate=200), NAMES, rate=200)
    found = predict(
        model, Subject("fast", read_recording(path), frozenset()), config, {}
    )
    assert found.recording.rate == 64
    assert len(found.windows.prob) == 30


def test_the_threshold_is_the_runs_own_on_validation_subjects(model, config):
    # Validation windows of the seizure lie above 0.6, all others below 0.4.
    assert 0.35 <= model.threshold <= 0.65
    fixed = dataclasses.replace(config.events, threshold=0.9)
    given = dataclasses.replace(config, events=fixed)
    assert load_model(distilclip_eeg.make_system, given).threshold == 0.9


def test_every_row_of_the_students_structure_can_predict(place, config):
    teacher = load_model(distilclip_eeg.make_system, config, "teacher")
    assert "block_1" in teacher.variables.params["eeg"]
    predict(teacher, subject_of(place), config, {})
    with pytest.raises(InputError, match=r"no finished model 'gru'.*student, teacher"):
        load_model(distilclip_eeg.make_system, config, "gru")


def test_truth_is_of_the_event_classes_alone(place, config, model):
    inputs = list_inputs([place / "mine"], model.intake, corpus="folder")
    (found,) = [given.read("p1") for given in inputs if given.stem == "p1"]
    result = predict(model, found, config, {})
    np.testing.assert_array_equal(result.track.truth, [SEIZURE])
    unnamed = found._replace(event_labels=frozenset({"spike"}))
    assert len(predict(model, unnamed, config, {}).track.truth) == 0


def test_masked_channels_are_named_and_the_run_decides_otherwise(place, config, model):
    recording = read_recording(place / "mine" / "p1.edf")
    short = dataclasses.replace(
        recording,
        signal=recording.signal[:-1],
        channels=recording.channels[:-1],
        kinds=recording.kinds[:-1],
        units=recording.units[:-1],
    )
    subject = Subject("short", short, frozenset())
    with pytest.raises(InputError, match="missing channels O2"):
        predict(model, subject, config, {})
    found = predict(model, subject, config, {"policy": "mask"})
    assert found.recording.filled == ("O2",)


def test_a_model_that_gives_nan_is_refused(place, config, model):
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), model.variables.params)
    diverged = model._replace(variables=model.variables._replace(params=broken))
    with pytest.raises(InputError, match="not finite"):
        predict(diverged, subject_of(place), config, {})


def test_zscore_over_the_training_set_is_fitted_again(place, tmp_path):
    data = dataclasses.replace(DATA, zscore="train_set")
    config = read_config(make_run(tmp_path / "run", place / "mine", data=data))
    model = load_model(distilclip_eeg.make_system, config)
    store = open_store(config)
    spread = np.asarray(store.signal).std(axis=(0, 2))
    np.testing.assert_allclose(model.zscore.std, spread, rtol=0.2)
    found = predict(model, subject_of(place), config, {})
    assert len(found.windows.prob) == 30


def test_the_verb_writes_events_and_a_plot(place, tmp_path, capsys):
    recording = str(place / "mine" / "p2.edf")
    out = tmp_path / "out"
    run = str(place / "run")
    assert main(["predict", recording, "--model", run, "--out", str(out)]) == 0
    table = read_szcore_tsv(out / "p2_events.tsv")
    assert table.duration_s == 60
    assert (out / "p2.png").read_bytes().startswith(b"\x89PNG")
    written = {"p2_events.tsv", "p2_events.json", "p2.png"}
    assert {path.name for path in out.iterdir()} == written
    assert "p2: events in 60 s" in capsys.readouterr().out


def test_a_folder_of_a_corpus_is_scored(place, tmp_path, capsys):
    args = ["predict", str(place / "mine"), "--model", str(place / "run")]
    args += ["--data.corpus", "folder", "--out", str(tmp_path), "--row", "teacher"]
    assert main(args) == 0
    assert len(list(tmp_path.glob("p*_events.tsv"))) == 4
    said = " ".join(capsys.readouterr().out.split())
    assert "All 4 recordings:" in said
    assert "of 4 hit" in said


def test_without_a_background_class_it_writes_probabilities(place, tmp_path, capsys):
    folder = write_folder(tmp_path / "two")
    lines = ["file,subject,label"]
    lines += [f"p{i}.edf,{i},{'rest' if i % 2 else 'task'}" for i in range(4)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    run = make_run(tmp_path / "run", folder)
    out = tmp_path / "out"
    args = [str(folder / "p0.edf"), "--model", str(run), "--out", str(out)]
    assert main(["predict", *args]) == 0
    rows = (out / "p0_windows.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["onset", "duration", "rest", "task"]
    values = np.array([row.split("\t") for row in rows[1:]], float)
    np.testing.assert_array_equal(values[:, 0], np.arange(30) * 2)
    np.testing.assert_allclose(values[:, 2:].sum(1), 1, atol=2e-4)
    assert "no events" in capsys.readouterr().out


def test_window_probabilities_are_calibrated(place, config, model):
    found = predict(model, subject_of(place), config, {})
    flat = window_table(found, ("a", "b"), 1e6, 2.0).splitlines()[1].split("\t")
    assert flat[2:] == ["0.5000", "0.5000"]


def test_no_text_is_needed_to_predict(place, tmp_path):
    texts = tmp_path / "texts.csv"
    texts.write_text("label,text\nbackground,calm\nseizure,spikes\nseizure,waves\n")
    source = dataclasses.replace(TINY.text, source="file", file=str(texts))
    system = dataclasses.replace(TINY, text=source)
    run = make_run(tmp_path / "run", place / "mine", system=system)
    config = read_config(run)
    recording = subject_of(place)
    model = load_model(distilclip_eeg.make_system, config)
    with_texts = predict(model, recording, config, {})
    texts.unlink()
    deployed = find("distilclip_eeg").deployed(config)
    model = load_model(distilclip_eeg.make_system, deployed)
    without = predict(model, recording, config, {})
    np.testing.assert_array_equal(with_texts.windows.prob, without.windows.prob)
    out = tmp_path / "out"
    args = [str(place / "mine" / "p1.edf"), "--model", str(run), "--out", str(out)]
    assert main(["predict", *args]) == 0


def test_preprocessing_is_that_of_the_store(config):
    store = open_store(config)
    data = config_of(store.manifest)
    assert (data.rate, data.band, data.window_s) == (64.0, (0.5, 25.0), 2.0)
    recording = read_recording(f"{config.data.root}/p0.edf")
    cut, _ = window_recording(recording, data)
    rows = store.recording_rows("p0.edf")
    np.testing.assert_array_equal(cut.signal, store.signal[rows])


def recorded(place, names, **changes):
    """A stranger's recording: of these channels alone."""
    raw = read_recording(place / "mine" / "p1.edf")
    rows = [raw.channels.index(name) for name in names]
    pick = lambda values: tuple(values[i] for i in rows)
    short = dataclasses.replace(
        raw,
        signal=raw.signal[rows],
        channels=pick(raw.channels),
        kinds=pick(raw.kinds),
        units=pick(raw.units),
    )
    return Subject("short", short, frozenset())


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"zscore": "train_set"}])
def test_a_student_of_two_channels_takes_a_recording_of_two(place, tmp_path, changes):
    data = dataclasses.replace(DATA, **changes)
    few = dataclasses.replace(TINY, student_channels=("O2", "C3"))
    run = make_run(tmp_path / "run", place / "mine", data=data, system=few)
    config = read_config(run)
    model = load_model(distilclip_eeg.make_system, config)
    assert model.intake.signal.channels == ("O2", "C3")
    found = predict(model, recorded(place, ["C3", "O2"]), config, {})
    assert found.recording.channels == ("O2", "C3")
    whole = predict(model, subject_of(place), config, {})
    np.testing.assert_array_equal(found.windows.prob, whole.windows.prob)
    # As it was trained and judged: on whole windows.
    store = open_store(config)
    wide = dataclasses.replace(config, signal=signal_of(store))
    system = distilclip_eeg.make_system(wide)
    signal = np.asarray(store.signal[store.recording_rows("p1.edf", on_grid=True)])
    if model.zscore is not None:
        zscore = fit_train_zscore(store, make_folds(store, num_folds=3)[0].train)
        signal = (signal - zscore.mean[:, None]) / zscore.std[:, None]
    judge = jax.jit(predict_fn(system, "student"))
    want = judge(model.variables, {"signal": np.float32(signal)})
    np.testing.assert_allclose(found.windows.prob, want, rtol=1e-3, atol=1e-5)
    with pytest.raises(InputError, match="missing channels O2"):
        predict(model, recorded(place, ["C3", "Cz"]), config, {})
    teacher = load_model(distilclip_eeg.make_system, config, "teacher")
    assert teacher.intake.signal.channels == NAMES
    with pytest.raises(InputError, match="missing channels Fp1, Cz, C4"):
        predict(teacher, recorded(place, ["C3", "O2"]), config, {})


@pytest.mark.slow
def test_an_average_of_all_channels_needs_all(place, tmp_path):
    data = dataclasses.replace(DATA, montage="average")
    few = dataclasses.replace(TINY, student_channels=("O2", "C3"))
    run = make_run(tmp_path / "run", place / "mine", data=data, system=few)
    config = read_config(run)
    model = load_model(distilclip_eeg.make_system, config)
    found = predict(model, subject_of(place), config, {})
    assert found.recording.channels == ("O2", "C3")
    store = open_store(config)
    rows = store.recording_rows("p1.edf", on_grid=True)
    windows = np.asarray(store.signal[rows])[:, [4, 1]]
    system = distilclip_eeg.make_system(
        dataclasses.replace(config, signal=model.intake.signal, student_channels=())
    )
    want = jax.jit(predict_fn(system, "student"))(model.variables, {"signal": windows})
    np.testing.assert_allclose(found.windows.prob, want, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="missing channels Fp1, Cz, C4: the model's"):
        predict(model, recorded(place, ["C3", "O2"]), config, {})
    facts = {"weights": {}, "sizes": {}, "files": [], "latency": []}
    card = make_card(model, config, "student", **facts)
    assert set(card.preprocessing["average of"]) == set(NAMES)
    assert card.look_ahead_s == look_ahead_s(data.band, 4, card.rate) > 0


def test_where_an_amplifier_was_off_an_answer_is_not_to_be_trusted(
    place, tmp_path, monkeypatch, capsys
):
    signal = noise(9)
    signal[:, 4500:5300] = 0
    write_edf(tmp_path / "off.edf", signal, NAMES, rate=100)
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "off.edf", "--model", str(place / "run")]) == 0
    window_s = DATA.window_s
    touched = int(np.ceil(53 / window_s) - np.floor(45 / window_s))
    said = f"Not to be trusted: flat signal: {touched} windows: off ({touched})."
    assert said in capsys.readouterr().out
