"""Whom the teacher is not tuned on, so that the router's probe can learn from them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.config import TrainConfig
from eegkd.data.batches.maker import BatchMaker, BatchPlan
from eegkd.data.windows.folds import make_folds
from eegkd.errors import InputError
from eegkd.losses import binary_cross_entropy, weighted_mean
from eegkd.pipeline.folds import fold_data, hold_out
from eegkd.train.inputs import with_labelled
from tests.support.stores import tiny_store


def data_of(**manifest):
    store = tiny_store(per_subject=12, rate=200.0, t=200, **manifest)
    return fold_data(store, make_folds(store, "kfold", num_folds=3)[0])


def test_a_share_of_training_subjects_is_held_out_whole():
    data = data_of()
    assert hold_out(data, 0.0, 0) is None
    held = hold_out(data, 0.5, 0)
    subject = data.store.index["subject"]
    people = np.unique(subject[held])
    training = np.unique(subject[data.fold.train])
    assert len(people) == round(0.5 * len(training))
    assert set(people) < set(training)
    np.testing.assert_array_equal(held, np.isin(subject, people))
    np.testing.assert_array_equal(held, hold_out(data, 0.5, 0))


def test_those_without_labels_cannot_be_held_out():
    data = data_of()
    training = np.unique(data.store.index["subject"][data.fold.train]).tolist()
    few = data_of(student_subjects=training[:2])
    held = hold_out(few, 0.5, 0)
    people = set(few.store.index["subject"][held])
    assert len(people) == 1
    assert people < set(training[:2])


@pytest.mark.parametrize("share", [0.05, 0.95])
def test_a_share_that_leaves_nobody_is_refused(share):
    with pytest.raises(InputError, match="leaves subjects on both sides"):
        hold_out(data_of(), share, 0)


def test_the_probe_reads_labelled_windows_of_those_held_out():
    data = data_of()
    held = hold_out(data, 0.5, 0)
    maker = BatchMaker(
        store=data.store,
        plan=BatchPlan(
            labels=np.where(np.arange(len(data.store)) % 2, data.store.labels, -1),
            extras={"held_out": np.float32(held)},
        ),
    )
    rows = np.arange(len(data.store))
    batch = with_labelled(maker(rows))
    np.testing.assert_array_equal(batch["unseen_labelled"], held & (rows % 2 == 1))
    plan = dataclasses.replace(maker.plan, extras={})
    bare = with_labelled(dataclasses.replace(maker, plan=plan)(rows))
    np.testing.assert_array_equal(bare["unseen_labelled"], rows % 2 == 1)


def test_a_share_is_below_one():
    with pytest.raises(ValueError, match=r"held_out is in \[0, 1\); got 1"):
        TrainConfig(held_out=1.0)


def test_a_row_of_labels_counts_those_that_are_known():
    label = np.array([[0, 1, -1], [-1, -1, -1], [1, 0, 1]], np.float32)
    batch = with_labelled({"label": label, "held_out": np.array([1.0, 1.0, 0.0])})
    assert batch["labelled"].tolist() == [2, 0, 3]
    assert batch["unseen_labelled"].tolist() == [2, 0, 0]
    logits = np.array([[0.3, -1.0, 9.0], [1.0, 2.0, 3.0], [0.1, 0.2, -0.4]])
    values = binary_cross_entropy(jnp.asarray(logits), jnp.asarray(label))
    known = label >= 0
    p = 1 / (1 + np.exp(-logits))
    cells = -np.where(label == 1, np.log(p), np.log(1 - p))
    mean = weighted_mean(values, batch["labelled"])
    assert mean == pytest.approx(cells[known].mean(), rel=1e-6)
