"""Labels and names as texts, whatever type they came in."""

from pathlib import Path

import numpy as np
import pytest

from eegkd.data.columns import to_labels, to_texts
from eegkd.errors import InputError

FILE = Path("a.npz")


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.0, 1.0, -1.0, np.nan]),
        np.array([0, 1, -1, np.nan], np.float16),
        np.array([0, 1, -1, -1]),
        np.array([0, 1, -1, -1], np.int8),
        np.array(["0", "1", "-1", ""]),
        np.array(["0.0", " 1. ", "-1.0", "nan"]),
        np.array(["+0", "1", "unlabelled", "<NA>"]),
        np.array([b"0", b"1", b"-1.00", b"NaN"]),
    ],
    ids=lambda x: f"{x.dtype}{x.tolist()}",
)
def test_one_column_is_one_whatever_its_type(values):
    found = to_labels(FILE, values)
    assert found == ("0", "1", "", "")
    assert to_labels(FILE, values, ("rest", "task")) == found


def test_booleans_name_classes_that_are_listed_by_number():
    values = np.array([True, False])
    assert to_labels(FILE, values) == ("True", "False")
    assert to_labels(FILE, values, ("rest", "task")) == ("1", "0")
    assert to_labels(FILE, np.array([0, 1], np.uint8)) == ("0", "1")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([1.0, 0.5]), "label of window 1 is '0.5'"),
        (np.array([0, -2]), "label of window 1 is '-2'"),
        (np.array([0, np.nan]).astype(np.float32) * -9 - 1.5, "window 0 is '-1.5'"),
        (np.array(["a", "-99"]), "label of window 1 is '-99'"),
        (np.array([np.inf, 1.0]), "label of window 0 is inf"),
        (np.array([0, -1]).astype(np.uint8), "window 1 is 255, .* -1 becomes in uint8"),
        (np.array([0, -1]).astype(np.uint64), "18446744073709551615, .* signed"),
        (np.array(["None", "a"]), "window 0 is 'None'.*list it as a class"),
        (np.array(["a", "NA"]), "window 1 is 'NA'"),
        (np.array([1 + 2j]), "label is of type complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "label is of type datetime64"),
    ],
)
def test_what_may_be_a_class_or_none_is_asked_for(values, said):
    with pytest.raises(InputError, match=rf"a\.npz: .*{said}"):
        to_labels(FILE, values)


@pytest.mark.parametrize("name", ["None", "NA", "-99", "0.5", "n/a", "1.0", "nan"])
def test_a_class_that_is_listed_may_be_called_anything(name):
    assert to_labels(FILE, np.array([name, "b", ""]), (name, "b")) == (name, "b", "")


def test_all_numbers_of_an_unsigned_type_may_be_classes():
    values = np.arange(256, dtype=np.uint8)
    assert to_labels(FILE, values)[255] == "255"
    listed = tuple(f"c{i}" for i in range(256))
    assert to_labels(FILE, values[255:], listed) == ("255",)


def test_several_classes_of_one_window_are_read_one_by_one():
    assert to_labels(FILE, np.array(["1.0;2.0", ";", "AF;x"])) == ("1;2", ";", "AF;x")


def test_a_person_of_one_number_is_one_person():
    for values in (np.array([1.0, 12.0]), np.array([1, 12]), np.array(["1", " 12"])):
        assert to_texts(FILE, "subject", values) == ("1", "12")
    assert to_texts(FILE, "subject", np.array([np.nan, 1.5])) == ("", "1.5")
