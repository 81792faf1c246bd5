"""Runs whose teachers another run has trained."""

import dataclasses

import pytest

from eegkd.config import TrainConfig, preset_config
from eegkd.data.windows.folds import make_folds, splits_json
from eegkd.errors import InputError
from eegkd.pipeline.finished import RESULTS
from eegkd.pipeline.folder import open_run, read_json, write_json
from eegkd.pipeline.schedule import Training
from eegkd.pipeline.teacher_reuse import check_teachers, recipe, take_teachers
from eegkd.systems.distilclip_eeg.config import KdConfig, LossConfig
from eegkd.systems.entry import find, names
from eegkd.train.optimiser import OptimConfig
from tests.support import tiny_run

STORE = tiny_run.tiny_store()
SPLITS = splits_json(STORE, make_folds(STORE, num_folds=2))


def record_of(out, store=STORE, **changes):
    config = tiny_run.tiny_config(out, **changes)
    return {
        "system": "distilclip_eeg",
        "run": config,
        "store": {"path": "", "fingerprint": store.fingerprint},
        "num_folds": 2,
        "variants": [],
        "terms": {"system": {"teacher": {"l1": 1.0}, "student": {"l1": 0.5}}},
    }


@pytest.fixture
def source(tmp_path):
    """A run that has finished the teacher of the first of its two folds."""
    folder = tmp_path / "source"
    open_run(folder, record_of(folder))
    write_json(folder / "splits.json", SPLITS)
    place = folder / "fold0" / "teacher"
    write_json(place / "done.json", {"seconds": 1.0, "files": {}})
    for name in RESULTS:
        (place / name).write_bytes(name.encode())
    return folder


def take(source, out, splits=SPLITS, **changes):
    record = record_of(out, teacher_run=str(source), **changes)
    check_teachers(record, splits, ("teacher",))
    trainings = [Training(fold, "teacher", "teacher") for fold in range(2)]
    return take_teachers(out, record, trainings)


def test_what_is_finished_is_copied_and_the_rest_is_named(source, tmp_path):
    out = tmp_path / "out"
    said = take(source, out)
    assert "fold1/teacher" in said
    assert "fold0" not in said
    for name in RESULTS:
        assert (out / "fold0" / "teacher" / name).read_bytes() == name.encode()
    place = source / "fold0" / "teacher"
    done = read_json(out / "fold0" / "teacher" / "done.json")
    assert done == {"seconds": 1.0, "files": {}, "taken_from": str(place)}
    assert not (out / "fold1").exists()
    # What this run has itself is left alone.
    (out / "fold0" / "teacher" / RESULTS[0]).write_bytes(b"own")
    take(source, out)
    assert (out / "fold0" / "teacher" / RESULTS[0]).read_bytes() == b"own"


def test_a_run_may_differ_in_what_the_student_alone_reads(source, tmp_path):
    changes = {
        "kd": KdConfig(alpha=0.1),
        "num_seeds": 7,
        "rows": (),
        "student_channels": ("C3",),
        "train": TrainConfig(
            epochs=9, teacher_epochs=3, batch_size=16, runner="pmap", teacher="online"
        ),
        "optim": OptimConfig(learning_rate=1e-2, teacher_learning_rate=1e-3),
    }
    assert "Teachers are those of" in take(source, tmp_path / "out", **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "another `seed`: it was 0, now 1"),
        ({"loss": LossConfig(positives="identity")}, "`loss`: positives was multi"),
        (
            {"train": TrainConfig(epochs=4, batch_size=16)},
            "`train`: teacher_epochs was 3, now 4",
        ),
        (
            {"optim": OptimConfig(learning_rate=2e-3)},
            "`optim`: teacher_learning_rate was 0.001, now 0.002",
        ),
    ],
)
def test_teachers_that_were_trained_otherwise_are_refused(
    source, tmp_path, changes, words
):
    with pytest.raises(InputError, match=words):
        take(source, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_other_folds_windows_losses_and_missing_files_are_refused(source, tmp_path):
    out = tmp_path / "out"
    other = splits_json(STORE, make_folds(STORE, num_folds=2, seed=1))
    with pytest.raises(InputError, match="has other folds"):
        take(source, out, splits=other)
    record = record_of(out, tiny_run.tiny_store(gain=2.0), teacher_run=str(source))
    with pytest.raises(InputError, match="on other windows"):
        check_teachers(record, SPLITS, ("teacher",))
    record = record_of(out, teacher_run=str(source))
    record["terms"] = {"system": {"teacher": {"l1": 0.7}}}
    with pytest.raises(InputError, match="trained the stage teacher with the losses"):
        check_teachers(record, SPLITS, ("teacher",))
    with pytest.raises(InputError, match="is a run of distilclip_eeg"):
        check_teachers(record | {"system": "dlink"}, SPLITS, ("teacher",))
    with pytest.raises(InputError, match="own folder"):
        take(source, source)
    (source / "fold0" / "teacher" / RESULTS[1]).unlink()
    with pytest.raises(InputError, match=f"{RESULTS[1]} is gone"):
        take(source, out)
    assert not (out / "fold0" / "teacher" / "done.json").exists()


def test_a_command_that_is_refused_leaves_no_folder(source, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="another `seed`: it was 0, now 1"):
        tiny_run.run(out, STORE, num_folds=2, teacher_run=str(source), seed=1)
    assert not out.exists()


def test_every_option_of_the_student_is_one_of_the_config():
    for name in names():
        config = preset_config(find(name), "paper")
        options = {field.name for field in dataclasses.fields(config)}
        assert set(config.student_options) < options
        assert not recipe(config).keys() & set(config.student_options)


def test_labels_of_students_alone_do_not_make_another_teacher(tmp_path):
    train = tiny_run.tiny_config(tmp_path).train

    def own(**changes):
        changed = dataclasses.replace(train, **changes)
        return recipe(tiny_run.tiny_config(tmp_path, train=changed))

    assert own(labelled_people=2, labelled_share=0.25) == own()
    # Those held out from the teacher are chosen among the labelled.
    assert own(labelled_people=2, held_out=0.5) != own(held_out=0.5)
