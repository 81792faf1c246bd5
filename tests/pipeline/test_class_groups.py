"""Classes of training windows, by label or by the teacher's decision."""

import dataclasses
import types

import numpy as np
import pytest

from eegkd.cache.read import TeacherTensor
from eegkd.config import RunConfig
from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.losses import Term, kd_kl
from eegkd.pipeline.class_groups import (
    check_decisions,
    groups_of,
    without_rows_in_place,
)
from eegkd.pipeline.folds import FoldData
from eegkd.systems import Stage, System, keep_all


def store_of(label, **manifest):
    label = np.asarray(label)
    subject = [f"s{i // 4}" for i in range(len(label))]
    k = label.shape[1] if label.ndim > 1 else 2
    about = {
        **{"corpus": "toy", "classes": list("abcdefgh"[:k]), "channels": ["Cz"]},
        **{"rate": 4.0, "window_s": 1.0},
    }
    index = {
        **{"recording_id": subject, "subject": subject, "label": label},
        "start_s": np.arange(len(label)) * 1.0,
    }
    signal = np.arange(len(label) * 4.0).reshape(-1, 1, 4)
    return WindowStore.from_arrays(None, signal, index, about | manifest)


def system_of(*, reads="teacher.logits"):
    def forward(variables, batch, upstream, *, train, key):
        return {}, {}

    def predict(variables, batch):
        # The teacher tells odd windows from even ones.
        odd = (batch["signal"][:, 0, 0] // 4) % 2
        return np.stack([1 - odd, odd], axis=1) + variables

    teacher = Stage("teacher", lambda *a: None, forward, predict=predict)
    term = Term("kd", kd_kl, ("student.logits", reads))
    student = Stage("student", lambda *a: None, forward, (term,))
    return System("toy", ("signal",), keep_all, (teacher, student))


def data_of(store, rows):
    return FoldData(store, Fold(0, rows, rows[:1], rows[:1]), None)


def test_the_teacher_decides_where_the_student_has_no_label():
    label = np.array([0, 0, 1, 1] * 4)
    store = store_of(label, student_subjects=["s0", "s1"])
    system, rows = system_of(), np.arange(14)
    programs = {
        ("", "teacher", ""): types.SimpleNamespace(
            system=system, stage="teacher", predict=system.stages[0].predict
        )
    }
    found = groups_of(
        system, programs, {"teacher": 0.0}, {}, data_of(store, rows), None
    )
    np.testing.assert_array_equal(found[:8], label[:8])
    np.testing.assert_array_equal(found[8:14], np.arange(8, 14) % 2)
    # Its logits, where its outputs came from outside.
    logits = np.eye(2)[np.arange(16) % 2] * 3 - 1
    cache = {"teacher": {"logits": TeacherTensor(logits, np.arange(16))}}
    again = groups_of(system, {}, {}, cache, data_of(store, rows), None)
    np.testing.assert_array_equal(again[rows], found[rows])


def test_controls_within_classes_need_labels_or_a_decision():
    config = RunConfig(rows=("class_mean_teacher",))
    store = store_of([0, 1, -1, 1])
    tokens = system_of(reads="teacher.tokens")
    given = frozenset({"teacher"})
    with pytest.raises(InputError, match="gives no logits .* leave these rows out"):
        check_decisions(tokens, given, store, config)
    check_decisions(system_of(), given, store, config)
    check_decisions(tokens, frozenset(), store, config)
    check_decisions(tokens, given, store_of([0, 1, 0, 1]), config)
    check_decisions(tokens, given, store, dataclasses.replace(config, rows=("linear",)))


def test_a_shuffle_that_leaves_most_in_place_is_not_run_and_said():
    rows = np.arange(8)
    folds = [Fold(i, rows, rows[:1], rows[:1]) for i in range(2)]
    config = RunConfig(rows=("alpha_0", "within_class_shuffle"))
    bits = (np.arange(8)[:, None] >> np.arange(3)) & 1
    changed, said = without_rows_in_place(config, store_of(bits), folds)
    assert changed.rows == ("alpha_0",)
    assert "100% of the labelled" in said[0]
    assert "was not run" in said[0]
    # Judged again, the run has no such row any more, and says so still.
    assert without_rows_in_place(changed, store_of(bits), folds) == (changed, said)
    few = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1], [-1, -1], [0, 1], [0, 1]])
    kept, said = without_rows_in_place(config, store_of(few), folds)
    assert kept == config
    assert "14% of the labelled training windows are alone" in said[0]
    assert without_rows_in_place(config, store_of([0, 1] * 4), folds) == (config, ())
