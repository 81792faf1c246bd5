"""Variables on disk: names that are no parameters, and values that are no numbers."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from eegkd.errors import InputError
from eegkd.train.weights import (
    check_same_shapes,
    load_variables,
    named_arrays,
    save_variables,
)
from eegkd.typing import Variables

WHOLE = Variables(
    params={"head": {"kernel": np.ones((2, 3), np.float32)}},
    frozen={"ids": np.arange(3, dtype=np.int32)},
    state={"mean": np.zeros(2, np.float32)},
)


def test_variables_come_back_as_they_are(tmp_path):
    save_variables(tmp_path / "v.safetensors", WHOLE)
    again = named_arrays(load_variables(tmp_path / "v.safetensors"))
    for name, array in named_arrays(WHOLE).items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize(
    "names",
    [
        ("params/a", "params/a/b"),
        ("params/a/b", "params/a"),
        ("params/a/b/c", "params/a/b"),
        ("other/a",),
        ("params",),
        ("a", "a/b"),
    ],
)
def test_names_that_are_no_parameters_are_refused(tmp_path, names):
    path = tmp_path / "v.safetensors"
    save_file({name: np.zeros(2, np.float32) for name in names}, path)
    with pytest.raises(InputError, match="is no parameter, or is one and has others"):
        load_variables(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    arrays = named_arrays(WHOLE)
    arrays["params/head/kernel"][1, 2] = value
    save_file(arrays, tmp_path / "v.safetensors")
    arrays["params/head/kernel"][1, 2] = 1
    with pytest.raises(InputError, match=r"params/head/kernel\[1, 2\] is"):
        load_variables(tmp_path / "v.safetensors")


def test_weights_of_another_type_are_of_another_model(tmp_path):
    path = tmp_path / "v.safetensors"
    arrays = named_arrays(WHOLE)
    arrays["params/head/kernel"] = np.ones((2, 3), np.int32)
    save_file(arrays, path)
    with pytest.raises(InputError, match=r"int32\[2, 3\] there and float32\[2, 3\] in"):
        check_same_shapes(path, load_variables(path), WHOLE)


@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 100])
def test_files_that_are_none_are_refused(tmp_path, content):
    path = tmp_path / "v.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged file of weights"):
        load_variables(path)
    with pytest.raises(InputError, match="no such file of weights"):
        load_variables(tmp_path / "none")
