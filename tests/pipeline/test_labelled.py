"""Whose labels a student may use, and how often windows with labels are drawn."""

import dataclasses

import numpy as np
import pytest

from eegkd.config import TrainConfig
from eegkd.data.batches.loader import make_loader
from eegkd.data.batches.maker import BatchPlan
from eegkd.data.windows.folds import make_folds
from eegkd.errors import InputError
from eegkd.pipeline.folds import fold_data
from eegkd.pipeline.labelled import labelled_alone, limit_labels, with_share
from tests.support.stores import tiny_store


def data_of(**manifest):
    """The first of three folds of nine people."""
    fold = make_folds(tiny_store(9, 12), num_folds=3)[0]
    return fold_data(tiny_store(9, 12, **manifest), fold)


def one_labelled():
    people = np.unique(data_of().store.index["subject"][data_of().fold.train])
    return data_of(student_subjects=[str(people[2])])


def drawn(data, rows, *, num_epochs=1, batch_size=6):
    """Labels and rows of all batches."""
    plan = BatchPlan(sampler="balanced", labels=data.store.student_labels)
    loader = make_loader(
        *(data.store, rows),
        batch_size=batch_size,
        seed=0,
        num_epochs=num_epochs,
        plan=plan,
    )
    try:
        batches = list(loader)
    finally:
        loader.close()
    return [np.concatenate([b[k] for b in batches]) for k in ("label", "window_id")]


def test_a_net_without_a_teacher_reads_labelled_windows_alone():
    data = one_labelled()
    rows = labelled_alone(data)
    known = data.fold.train[data.store.student_labels[data.fold.train] >= 0]
    assert 0 < len(known) < len(data.fold.train) / 3
    assert len(rows) == len(data.fold.train)  # as many updates as others
    assert set(rows.tolist()) == set(known.tolist())
    label, _ = drawn(data, rows)
    assert (label >= 0).all()
    assert abs(np.mean(label == 1) - 0.5) < 0.1


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_labelled_windows_have_their_share_and_no_other_is_left_out(share):
    data = one_labelled()
    rows = with_share(data, share)
    label, window = drawn(data, rows, batch_size=4)
    assert np.mean(label >= 0) == pytest.approx(share, abs=0.05)
    assert set(rows.tolist()) == set(data.fold.train.tolist())
    _, times = np.unique(window[label < 0], return_counts=True)
    assert times.max() == 1


def test_where_all_have_labels_or_nobody_has_rows_stay_as_they_are():
    for data in (data_of(), data_of(student_subjects=[])):
        np.testing.assert_array_equal(labelled_alone(data), data.fold.train)
        np.testing.assert_array_equal(with_share(data, 0.5), data.fold.train)
    data = one_labelled()
    np.testing.assert_array_equal(with_share(data, 0.0), data.fold.train)


def test_people_of_a_small_number_are_among_those_of_a_larger():
    data = one_labelled()
    stated = data.store.manifest["student_subjects"]
    before: set[str] = set()
    for num in range(
        1, 1 + len(np.unique(data.store.index["subject"][data.fold.train]))
    ):
        store = limit_labels(data.store, data.fold, num)
        labels = store.student_labels
        people = set(store.index["subject"][labels >= 0].tolist())
        assert (len(people), before <= people, set(stated) <= people) == (
            num,
            True,
            True,
        )
        assert people <= set(store.index["subject"][data.fold.train].tolist())
        assert store.fingerprint == data.store.fingerprint
        before = people
    np.testing.assert_array_equal(
        labels[data.fold.train], store.labels[data.fold.train]
    )
    assert limit_labels(data.store, data.fold, 0) is data.store
    with pytest.raises(InputError, match=r"labelled_people 99: .* at most"):
        limit_labels(data.store, data.fold, 99)
    alike = np.repeat(np.arange(9) % 2, 12).astype(np.int32)
    index = data.store.index | {"label": alike}
    with pytest.raises(InputError, match=r"nobody has the class '.*'\. Ask for more"):
        limit_labels(dataclasses.replace(data.store, index=index), data.fold, 1)


def test_a_share_of_all_is_refused():
    with pytest.raises(ValueError, match=r"labelled_share is in \[0, 1\)"):
        TrainConfig(labelled_share=1.0)
