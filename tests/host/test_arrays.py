"""The door for arrays: what is damaged, cut, or would take too much memory."""

import contextlib
import io
import os
import struct
import zipfile

import numpy as np
import pytest

from eegkd.errors import InputError
from eegkd.host import arrays
from eegkd.host.arrays import open_npy, open_npz


def header(shape, descr="<f4", version=1):
    """The first bytes of a .npy file that tells of a shape."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n"
    form = "<H" if version == 1 else "<I"
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack(form, len(text))
        + text.encode()
    )


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<f4").reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(3.5),
        np.zeros((0, 3)),
        np.array(["a", "größer"]),
        np.array([b"a"]),
    ],
)
def test_arrays_come_back_as_they_are(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", x=array, y=array)
    found = open_npy(tmp_path / "a.npy", cure="")
    np.testing.assert_array_equal(found, array)
    with open_npz(tmp_path / "a.npz", cure="") as file:
        assert list(file) == ["x", "y"]
        assert "x" in file
        assert "z" not in file
        assert file.header("x") == (array.shape, array.dtype)
        np.testing.assert_array_equal(file.read("y"), array)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b"\x93NUMPY", "cannot be read"),
        (header((5, 5)) + bytes(99), "header tells of 100 bytes, and 99 are there"),
        (header((5_000_000_000_000,)), "tells of 20,000,000,000,000 bytes, and 0"),
        (header((2**62, 4, 2**62)), "header tells of"),
        (header((-1, 3)), "of a shape"),
        (header((10**12,), "<U0"), "tells of 1,000,000,000,000 bytes, and 0"),
        (header("(1, 2)").replace(b"'shape':", b"'shape'\n"), "cannot be read"),
        (header("(1,\t!"), "cannot be read"),
        (header((2,), "|O") + bytes(16), "without pickle"),
        (header((2,), "<q9") + bytes(16), "cannot be read"),
        (header((2,), "<f4", 2)[:20], "cannot be read"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "cannot be read"),
        (b"\x93NUMPY\x09\x00" + bytes(40), "cannot be read"),
    ],
)
def test_a_damaged_npy_is_refused(tmp_path, content, said):
    file = tmp_path / "a.npy"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.npy: cannot be read .*{said}|{said}"):
        open_npy(file, cure="Save it again.")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with (
        pytest.raises(InputError, match=r"a\.npz: cannot be read .*Save it again"),
        open_npz(tmp_path / "a.npz", cure="Save it again.") as archive,
    ):
        archive.read("x")


def test_a_small_file_of_much_is_refused_before_memory_is_taken(tmp_path, monkeypatch):
    file = tmp_path / "a.npz"
    np.savez_compressed(file, signal=np.zeros(1_000_000, np.float32))
    with open_npz(file, cure="") as archive:
        assert archive.header("signal") == ((1_000_000,), np.float32)
    monkeypatch.setattr(arrays, "FREE_BYTES", 1_000_000)
    with (
        pytest.raises(InputError, match="`signal` grows to 4,000,128 bytes, more than"),
        open_npz(file, cure="") as archive,
    ):
        archive.header("signal")


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_cut_or_altered_npz_is_refused(tmp_path, at):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.random.default_rng(0).normal(size=1000))
    whole, file = bytearray(buffer.getvalue()), tmp_path / "a.npz"
    place = int(at * len(whole))
    file.write_bytes(whole[:place])
    with pytest.raises(InputError, match="cannot be read"), open_npz(file, cure=""):
        pass
    whole[int(0.5 * len(whole))] ^= 0xFF
    file.write_bytes(whole)
    with (
        pytest.raises(InputError, match="cannot be read"),
        open_npz(file, cure="") as archive,
    ):
        archive.read("x")


def test_a_missing_array_and_a_missing_file_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(2))
    with (
        pytest.raises(InputError, match=r"holds no array `y`"),
        open_npz(tmp_path / "a.npz", cure="") as archive,
    ):
        archive.read("y")
    with pytest.raises(InputError, match=r"b\.npy: cannot be read \(No such file"):
        open_npy(tmp_path / "b.npy", cure="")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(InputError, match="no regular file"))
        if name == "a.npy":
            open_npy(tmp_path / name, cure="")
        stack.enter_context(open_npz(tmp_path / name, cure=""))
