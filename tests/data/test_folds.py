import json

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from eegkd.data.windows.folds import (
    leaks_subjects,
    make_folds,
    make_splitter,
    rare_classes,
    splits_json,
)
from eegkd.errors import InputError
from tests.support.people import toy_store


def subjects_of(store, rows):
    return set(store.index["subject"][rows])


@pytest.mark.parametrize(("split", "num"), [("kfold", 5), ("loso", 10)])
def test_folds_are_disjoint_by_subject_and_cover_every_subject_once(split, num):
    store = toy_store()
    folds = make_folds(store, split, num_folds=5, seed=3)
    assert len(folds) == num
    tested = np.concatenate([fold.test for fold in folds])
    np.testing.assert_array_equal(np.sort(tested), store.rows(on_grid=True))
    for fold in folds:
        train, val, test = (subjects_of(store, rows) for rows in fold[1:])
        assert len(train) + len(val) + len(test) == 10
        assert train | val | test == set(store.subjects.names)
        assert 1 <= len(val) <= 2
        assert store.index["on_grid"][fold.val].all()
        assert store.index["on_grid"][fold.test].all()
        np.testing.assert_array_equal(np.sort(fold.train), np.sort(store.rows(train)))
        assert set(store.labels[fold.val]) == {0, 1}
        assert not leaks_subjects(store, fold)


def test_test_rows_are_in_time_order_within_a_recording():
    store = toy_store()
    for fold in make_folds(store, "kfold"):
        names = store.index["recording_id"][fold.test]
        for name in set(names):
            assert np.all(np.diff(store.index["start_s"][fold.test[names == name]]) > 0)


def test_folds_depend_on_the_seed_alone():
    store = toy_store()
    one, same, other = (make_folds(store, seed=seed) for seed in (1, 1, 2))
    assert all(
        np.array_equal(a, b)
        for x, y in zip(one, same, strict=True)
        for a, b in zip(x[1:], y[1:], strict=True)
    )
    assert splits_json(store, one)["hash"] != splits_json(store, other)["hash"]


def test_without_subjects_folds_go_by_recording():
    store = toy_store(manifest={"has_subjects": False})
    for fold in make_folds(store):
        train, test = (
            set(store.index["recording_id"][rows]) for rows in (fold.train, fold.test)
        )
        assert not train & test
        assert not leaks_subjects(store, fold)


def test_a_fixed_split_is_followed():
    names = [f"{i:02d}" for i in range(10)]
    split = {"train": names[:6], "val": names[6:8], "test": names[8:]}
    store = toy_store(manifest={"split": split})
    (fold,) = make_folds(store, "fixed")
    for part in ("train", "val", "test"):
        assert subjects_of(store, getattr(fold, part)) == set(split[part])
    nested = toy_store(manifest={"split": {"train": names[:8], "test": names[8:]}})
    (fold,) = make_folds(nested, "fixed")
    assert subjects_of(nested, fold.test) == set(names[8:])
    assert subjects_of(nested, fold.val) < set(names[:8])


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (None, "no published split"),
        ({"error": "lacks persons 32-35"}, "lacks persons"),
        ({"train": ["00", "01"], "test": ["01"]}, "'01' is in test and train"),
        ({"train": ["00", "01"], "test": ["77"]}, "'77', which has no windows"),
    ],
)
def test_a_bad_fixed_split_is_refused(split, words):
    store = toy_store(manifest={"split": split} if split else {})
    with pytest.raises(InputError, match=words):
        make_folds(store, "fixed")


def test_too_few_subjects_and_missing_classes_are_refused():
    with pytest.raises(InputError, match=r"5 subjects; toy has 4"):
        make_folds(toy_store(4), num_folds=5)
    with pytest.raises(InputError, match="toy has 2"):
        make_folds(toy_store(2), "loso")
    with pytest.raises(InputError, match="unknown; choose one of kfold"):
        make_folds(toy_store(), "windows")
    rare = np.zeros(240, int)
    rare[:24] = 1
    with pytest.raises(
        InputError, match=r"Class 'task' has no training window in fold"
    ):
        make_folds(toy_store(label=rare))


def test_several_labels_a_window_are_grouped_too():
    label = np.stack([np.arange(240) % 2, np.arange(240) % 3 == 0], axis=1)
    store = toy_store(label=label)
    for fold in make_folds(store):
        assert not leaks_subjects(store, fold)


def multilabel_store(seed=0, num_subjects=40, per_subject=6):
    """Nine labels of the people, the rarest with few of them, some of several."""
    rng = np.random.default_rng(seed)
    person = rng.random((num_subjects, 4)) < (0.5, 0.3, 0.15, 0.0)
    person[rng.choice(num_subjects, 5, replace=False), 3] = True
    label = np.repeat(person, per_subject, axis=0).astype(int)
    label *= rng.random(label.shape) < 0.7
    label[::per_subject] = np.maximum(label[::per_subject], person)
    label[1::per_subject, 0] = -1
    whole = {"classes": ["a", "b", "c", "rare"]}
    return toy_store(num_subjects, per_subject, label=label, manifest=whole), person


@pytest.mark.parametrize("seed", range(4))
def test_people_of_every_label_are_spread_evenly(seed):
    store, person = multilabel_store(seed)
    folds = make_folds(store, num_folds=5, seed=seed)
    tested = np.concatenate([fold.test for fold in folds])
    np.testing.assert_array_equal(np.sort(tested), store.rows(on_grid=True))
    names = np.array(store.subjects.names)
    shares = []
    for fold in folds:
        assert not leaks_subjects(store, fold)
        mine = np.isin(names, list(subjects_of(store, fold.test)))
        shares.append(person[mine].sum(axis=0))
        assert abs(mine.sum() - 8) <= 3
        assert set(np.flatnonzero((store.labels[fold.train] == 1).any(0))) == {
            0,
            1,
            2,
            3,
        }
    assert np.ptp(np.array(shares), axis=0).max() <= 2
    # Each of the five with the rare label is in a fold of its own.
    assert [share[3] for share in shares] == [1] * 5
    again = make_folds(store, num_folds=5, seed=seed)
    for one, other in zip(folds, again, strict=True):
        assert all(map(np.array_equal, one[1:], other[1:]))
    other = make_folds(store, num_folds=5, seed=seed + 1)
    assert any(
        not np.array_equal(a.test, b.test) for a, b in zip(folds, other, strict=True)
    )


def test_a_label_that_too_few_people_have_is_named_with_their_number():
    store, person = multilabel_store()
    counts = dict(zip(store.classes, person.sum(axis=0).tolist(), strict=True))
    assert counts["rare"] == 5
    for num in (2, 5, 6, 40):
        want = {name: count for name, count in counts.items() if count < num}
        assert rare_classes(store, num) == want
    label = store.labels.copy()
    label[:, 3] = store.index["subject"] == "03"
    lone = toy_store(40, 6, label=label, manifest={"classes": ["a", "b", "c", "rare"]})
    with pytest.raises(
        InputError, match=r"Class 'rare' has no .*fewer than.*: c 4, rare 1"
    ):
        make_folds(lone)
    leaking = make_folds(lone, "random-windows")
    assert splits_json(lone, leaking)["leaks_subjects"]
    assert rare_classes(toy_store(), 20) == {}


def test_splits_json_says_what_is_in_a_fold():
    store = toy_store()
    folds = make_folds(store, "kfold", num_folds=5)
    said = json.loads(json.dumps(splits_json(store, folds)))
    first = said["folds"][0]
    assert said["leaks_subjects"] is False
    assert set(first["test"]["groups"]) == subjects_of(store, folds[0].test)
    assert first["train"]["windows"] == len(folds[0].train)
    assert first["train"]["classes"] == {"rest": 72, "task": 72}
    assert splits_json(store, make_folds(store, "random-windows"))["leaks_subjects"]


def test_a_planted_identity_is_chance_by_subject_and_near_one_by_random_windows():
    # The label is a coin tossed once a subject: only who it is can be learnt.
    coin = np.repeat([0, 1] * 8, 24)
    store = toy_store(16, 24, label=coin)
    x = store.signal.reshape(len(store), -1)
    scores = {}
    for split in ("kfold", "random-windows"):
        model = KNeighborsClassifier(3)
        scores[split] = np.mean(
            [
                model.fit(x[fold.train], coin[fold.train]).score(
                    x[fold.test], coin[fold.test]
                )
                for seed in range(4)
                for fold in make_folds(store, split, num_folds=4, seed=seed)
            ]
        )
    assert scores["random-windows"] > 0.95
    assert 0.2 < scores["kfold"] < 0.7


def test_splitters_are_scikit_learn_cross_validators():
    store = toy_store()
    x = store.signal.reshape(len(store), -1)
    groups = store.index["subject"]
    for split in ("kfold", "loso", "fixed"):
        splitter = make_splitter(split, num_folds=5, test_groups=("00", "01"))
        assert not getattr(splitter, "leaks", False)
        scores = cross_val_score(
            KNeighborsClassifier(3), x, store.labels, groups=groups, cv=splitter
        )
        assert len(scores) == splitter.get_n_splits(x, store.labels, groups)
    assert make_splitter("random-windows").leaks
