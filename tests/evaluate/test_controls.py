import functools

import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.evaluate.controls import (
    alpha_0,
    class_groups,
    share_alone,
    shuffled,
    within_class_shuffled,
    without_teacher,
)
from eegkd.losses import Term
from eegkd.systems import Stage, System, keep_all

ROWS = np.array([1, 2, 4, 5, 7, 8])
LABELS = np.array([9, 0, 0, 9, 1, 1, 9, 0, -1, 9])
OUTPUTS = {"logits": np.arange(20.0).reshape(10, 2)}


def toy():
    def init(key, batch, upstream):
        return sorted(upstream)

    student = Stage(
        "student",
        init,
        lambda *a, **k: ({}, {}),
        (
            Term("l1", jnp.abs, ("student.x",), 0.3),
            Term("kd", jnp.subtract, ("student.x", "teacher.x"), 0.7),
        ),
        needs=("teacher.y",),
    )
    teacher = Stage("teacher", init, lambda *a, **k: ({}, {}), ())
    predict = functools.partial(lambda *a: None)
    return System("toy", ("x",), keep_all, (teacher, student), predict)


def weights(system):
    return {t.name: t.weight for t in system.stages[-1].terms}


def test_alpha_0_keeps_functions_and_moves_all_weight_to_labels():
    system = alpha_0(toy())
    assert weights(system) == {"l1": 1.0, "kd": 0.0}
    assert system.stages[-1].forward is toy().stages[-1].forward or callable(
        system.stages[-1].forward
    )
    assert system.stages[-1].init(None, None, {"teacher": 1}) == ["teacher"]


def test_without_teacher_reads_and_starts_from_nothing_upstream():
    system = without_teacher(toy())
    assert weights(system) == {"l1": 1.0}
    assert system.stages[-1].needs == ()
    assert system.stages[-1].init(None, None, {"teacher": 1}) == []


def test_a_student_of_teacher_terms_alone_has_no_such_control():
    system = toy()
    student = system.stages[-1]
    bare = system._replace(stages=(student._replace(terms=student.terms[1:]),))
    with pytest.raises(ValueError, match="own outputs"):
        without_teacher(bare)


@pytest.mark.parametrize("control", [shuffled, within_class_shuffled])
def test_shuffles_permute_the_given_rows_alone(control):
    moved = control(OUTPUTS, ROWS, LABELS, seed=0)["logits"]
    others = np.setdiff1d(np.arange(10), ROWS)
    np.testing.assert_array_equal(moved[others], OUTPUTS["logits"][others])
    got = sorted(map(tuple, moved[ROWS]))
    assert got == sorted(map(tuple, OUTPUTS["logits"][ROWS]))
    assert not np.array_equal(moved[ROWS], OUTPUTS["logits"][ROWS])


def test_within_class_shuffle_stays_within_the_class():
    moved = within_class_shuffled(OUTPUTS, ROWS, LABELS, seed=3)["logits"]
    for label in np.unique(LABELS[ROWS]):
        rows = ROWS[LABELS[ROWS] == label]
        assert {tuple(r) for r in moved[rows]} == {
            tuple(r) for r in OUTPUTS["logits"][rows]
        }


def test_windows_without_a_label_are_of_the_class_the_teacher_decides():
    labels = np.array([0, -1, 1, -1, 0, 1, -1, 0, 1, -1])
    unknown = np.array([1, 3, 6])
    prob = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    rows = np.arange(9)
    groups = class_groups(labels, rows, unknown, prob)
    assert groups[rows].tolist() == [0, 0, 1, 1, 0, 1, 1, 0, 1]
    source = within_class_shuffled({"row": np.arange(10)}, rows, groups, seed=1)["row"]
    true = np.array([0, 0, 1, 1, 0, 1, 1, 0, 1, -1])
    np.testing.assert_array_equal(true[source[rows]], true[rows])
    # Without them labels are the classes, in the same order of random numbers.
    none = np.zeros(0, int)
    np.testing.assert_array_equal(
        class_groups(LABELS, ROWS, none, np.zeros((0, 10))), LABELS
    )


def test_combinations_of_labels_are_classes_and_unknown_ones_the_teachers():
    labels = np.array(
        [[1, 0], [1, 0], [0, 0], [-1, -1], [1, -1], [0, 1], [0, 1], [1, 1]], np.float32
    )
    prob = np.array([[0.5, 0.1], [0.2, 0.7]])
    rows = np.arange(7)
    groups = class_groups(labels, rows, np.array([3, 4]), prob)
    assert groups[0] == groups[1] == groups[3]  # Row 3 is [1, 0] to the teacher.
    assert len({groups[0], groups[2], groups[4], groups[5]}) == 4
    assert groups[5] == groups[6]
    assert share_alone(labels, rows) == pytest.approx(3 / 7)
    assert share_alone(labels, rows[:0]) == 0
    moved = within_class_shuffled({"row": np.arange(8)}, rows, groups, seed=0)["row"]
    assert moved[[2, 4, 7]].tolist() == [2, 4, 7]
    assert sorted(moved[[0, 1, 3]]) == [0, 1, 3]
