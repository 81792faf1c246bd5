"""What a run trains, as a table."""

import types
from pathlib import Path

import numpy as np
import pytest

from eegkd.data.windows.folds import make_folds
from eegkd.errors import InputError
from eegkd.pipeline.compiled import program_key
from eegkd.pipeline.folds import fold_data, part_data, part_of_rows
from eegkd.pipeline.schedule import (
    SMALL_NET,
    Training,
    left_out,
    missing,
    repeats,
    row_name,
    schedule,
)
from eegkd.systems import StageOptions, System, keep_all, replace_stage
from tests.support import toy
from tests.support.stores import toy_store


def given_and_crossfit():
    """The toy with a given stage before it, and a teacher in two parts."""
    teacher, student = toy.make_system().stages
    given = teacher._replace(name="given", terms=())
    teacher = teacher._replace(options=StageOptions(crossfit=2))
    return System("toy", ("signal",), keep_all, (given, teacher, student))


def options(rows=(), num_seeds=2):
    return types.SimpleNamespace(rows=rows, num_seeds=num_seeds)


def places(waves):
    return [[str(training.place) for training in wave] for wave in waves]


def test_a_run_is_listed_in_the_order_it_can_go():
    config = options(("linear", "alpha_0", SMALL_NET))
    waves = schedule({"": given_and_crossfit()}, config, 2)
    assert places(waves[:2]) == [
        ["fold0/teacher", "fold0/teacher/part1", "fold0/teacher/part2"],
        [
            *("fold0/student/seed0", "fold0/alpha_0/seed0"),
            *("fold0/student/seed1", "fold0/alpha_0/seed1"),
        ],
    ]
    assert {t.row for t in waves[2]} == {SMALL_NET}
    assert {t.seed for t in waves[2]} == {0}
    assert [wave[0].fold for wave in waves] == [0, 0, 0, 1, 1, 1]
    again = repeats(1, waves[2][3].trial, config)
    assert places([again]) == [[f"fold1/small_net/seed1-{waves[2][3].trial}"]]
    every = [t.place for wave in waves for t in wave]
    assert len(set(every)) == len(every)


def test_a_variant_has_its_own_rows_and_may_share_its_teacher():
    system = toy.make_system()
    systems, config = {"": system, "wide": system}, options(("no_teacher",), 1)
    own = schedule(systems, config, 1)
    assert places(own) == [
        ["fold0/teacher"],
        ["fold0/student/seed0", "fold0/no_teacher/seed0"],
        ["fold0/wide/teacher"],
        ["fold0/wide/student/seed0"],
    ]
    assert [w[0].model for w in own] == ["teacher", "student", "wide_teacher", "wide"]
    shared = schedule(systems, config, 1, same_teacher=True)
    assert places(shared) == [x for x in places(own) if x != ["fold0/wide/teacher"]]
    given = schedule(systems, config, 1, skipped={"": frozenset({"teacher"})})
    assert places(given) == places(own)[1:]
    assert row_name("wide", "lens") == "wide_lens"


def test_the_negative_control_needs_two_seeds_and_its_row():
    system = toy.make_system()
    wanted = ("no_teacher", "a_a")
    for rows, seeds, why in (
        (wanted, 2, None),
        (wanted, 1, "one seed"),
        (("a_a",), 2, "no row no_teacher"),
    ):
        config = options(rows, seeds)
        found = left_out(system, config)
        assert found.keys() == ({"a_a"} if why else set())
        assert why is None or why in found["a_a"]
        trained = {t.row for wave in schedule({"": system}, config, 1) for t in wave}
        assert ("a_a" in trained) == (why is None)
    # It shares the program of no_teacher, and nothing else.
    one = Training(0, "a_a", "student", seed=0)
    assert program_key(one) == program_key(one._replace(row="no_teacher"))
    assert str(one.place) == "fold0/a_a/seed0"


def test_a_control_that_cannot_be_made_is_left_out_with_its_reason():
    system = toy.make_system()
    student = system.stages[-1]
    terms = tuple(term._replace(weight=lambda step: 1.0) for term in student.terms)
    moving = replace_stage(system, student._replace(terms=terms))
    config = options(("alpha_0", "no_teacher", "a_a"), 2)
    found = left_out(moving, config)
    assert found.keys() == {"alpha_0", "no_teacher", "a_a"}
    assert "cannot be made of toy" in found["alpha_0"]
    assert "constant weight" in found["alpha_0"]
    rows = [t.row for wave in schedule({"": moving}, config, 1) for t in wave]
    assert rows == ["teacher", "student", "student"]


def test_what_is_not_finished_is_named(tmp_path):
    systems, config = {"": given_and_crossfit()}, options((SMALL_NET,), 2)
    whole = missing(systems, config, 1, tmp_path)
    assert "fold0/teacher/part2" in map(str, whole)
    assert whole[-1] == Path("fold0/small_net/seed1-*")
    for wave in schedule(systems, config, 1):
        for training in wave:
            (tmp_path / training.place).mkdir(parents=True)
            (tmp_path / training.place / "done.json").write_text("{}")
    assert missing(systems, config, 1, tmp_path) == [whole[-1]]
    last = Training(0, SMALL_NET, "student", seed=1, trial="dropout0.5-rate0.01")
    (tmp_path / last.place).mkdir()
    assert not last.done(tmp_path)
    (tmp_path / last.place / "done.json").write_text("{}")
    assert last.done(tmp_path)
    assert missing(systems, config, 1, tmp_path) == []


def test_parts_divide_the_training_subjects():
    store = toy_store()
    data = fold_data(store, make_folds(store, num_folds=2)[0])
    parts, subject = part_of_rows(data, 2, 0), store.index["subject"]
    train = data.fold.train
    assert set(parts[train]) == {1, 2}
    assert not parts[np.setdiff1d(np.arange(len(store)), train)].any()
    people = [set(subject[parts == number]) for number in (1, 2)]
    assert not people[0] & people[1]
    np.testing.assert_array_equal(parts, part_of_rows(data, 2, 0))
    assert part_data(data, parts, "") is data
    left = part_data(data, parts, "1").fold
    assert set(subject[left.train]) == people[1]
    np.testing.assert_array_equal(left.val, data.fold.val)
    with pytest.raises(InputError, match=r"in 9 parts, .* trains on 2 subjects"):
        part_of_rows(data, 9, 0)
