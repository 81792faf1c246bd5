"""What stops folds is named with a cure, and the cure works; persons never leak."""

import numpy as np
import pytest

from eegkd.data.windows.folds import leaks_subjects, make_folds, splits_json
from eegkd.data.windows.labelled import classes_without_windows
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from tests.support.people import toy_store


def with_index(store, manifest=None, **columns):
    whole = {**store.manifest, **(manifest or {})}
    index = {**store.index, **columns}
    return WindowStore.from_arrays(None, store.signal, index, whole)


def refused(store, words, *args, **options):
    with pytest.raises(InputError, match=words):
        make_folds(store, *args, **options)


def test_two_subjects_are_too_few_for_any_number_of_folds():
    refused(toy_store(2), r"at least 3 subjects; toy has 2\. .*random-windows")
    refused(toy_store(2), r"at least 3 subjects; toy has 2\.", "loso")
    (first, *_) = make_folds(toy_store(2), "random-windows")
    assert leaks_subjects(toy_store(2), first)
    assert len(make_folds(toy_store(3), num_folds=3)) == 3


def test_the_number_of_folds_is_lowered_or_raised_as_said():
    refused(toy_store(4), r"Lower --num_folds to at most 4\.", num_folds=5)
    assert len(make_folds(toy_store(4), num_folds=4)) == 4
    refused(toy_store(3), r"one subject is left .* Raise --num_folds", num_folds=2)
    assert len(make_folds(toy_store(3), num_folds=3)) == 3
    for split in ("kfold", "random-windows"):
        refused(toy_store(), "raise --num_folds to at least 2", split, num_folds=1)
        assert len(make_folds(toy_store(), split, num_folds=2)) == 2
    assert len(make_folds(toy_store(), "loso", num_folds=1)) == 10


def test_more_folds_than_windows_are_refused():
    store = toy_store(3, 4)
    with pytest.raises(InputError, match=r"windows are too few .*shorter windows"):
        make_folds(store, "random-windows", num_folds=20)
    assert len(make_folds(toy_store(), "random-windows", num_folds=20)) == 20


def class_of(num_subjects, others=10):
    label = np.zeros(24 * others, int)
    label[: 24 * num_subjects] = 1
    return toy_store(others, label=label)


def test_a_class_of_one_subject_cannot_be_trained_and_tested_on():
    refused(class_of(1), "one subject alone has it. Add recordings of others who do")
    assert len(make_folds(class_of(3))) == 5
    unlabelled = np.where(class_of(1).labels == 1, -1, class_of(3).labels)
    assert len(make_folds(toy_store(label=unlabelled))) == 5


def test_a_class_of_two_subjects_is_parted_by_loso():
    store = class_of(2, 4)
    found = []
    for seed in range(20):
        try:
            make_folds(store, num_folds=2, seed=seed)
        except InputError as error:
            found.append(str(error))
    assert found
    assert "--split loso" in found[0]
    assert len(make_folds(store, "loso")) == 4


def test_a_class_that_no_window_has_is_told_apart_from_a_rare_one():
    store = toy_store(manifest={"classes": ["rest", "task", "spike"]})
    refused(store, r"Class 'spike' has no training window .*: no window has it")
    event = {"label": "spike", "onset_s": 0.0, "duration_s": 0.5}
    record = {"a": {"events": [event]}}
    store = with_index(store, {"recordings": record})
    (sentence,) = classes_without_windows(store)
    assert "'spike': the longest stretch is 0.5 s" in sentence


def test_a_store_without_labels_is_refused_with_a_cure():
    store = toy_store(label=np.full(240, -1), manifest={"classes": []})
    for split in ("kfold", "loso", "random-windows"):
        refused(store, r"no labelled windows; training needs two .*labels\.csv", split)
    one = toy_store(label=np.zeros(240, int), manifest={"classes": ["rest"]})
    refused(one, "only class 'rest' of rest; training needs two classes")


def test_named_persons_stay_on_one_side_whoever_is_not_named():
    whole = toy_store()
    # As older stores of a folder with one loose file: has_subjects was false for all.
    subject = np.where(whole.index["subject"] == "09", "", whole.index["subject"])
    for named in (True, False):
        store = with_index(whole, {"has_subjects": named}, subject=subject)
        for fold in make_folds(store):
            assert not leaks_subjects(store, fold)
            for column in ("subject", "recording_id"):
                train, test = (
                    set(store.index[column][rows]) - {""} for rows in (fold[1], fold[3])
                )
                assert not train & test


def test_leaks_are_seen_by_the_subject_whatever_folds_went_by():
    store = toy_store(manifest={"has_subjects": False})
    by_recording = with_index(store, subject=store.index["recording_id"])
    folds = make_folds(by_recording)
    assert not splits_json(by_recording, folds)["leaks_subjects"]
    assert splits_json(store, folds)["leaks_subjects"]
