"""Hostile recordings, labels, folders and arrays, each of which once was a fault.

They hung, took the memory, ended in a traceback or were read in silence.
"""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from tests.fuzz import formats, inputs
from tests.fuzz.cases import EITHER, REFUSED, SAME, case


def _field(where: int, width: int, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / "a.edf").read_bytes())
        data[where : where + width] = text.encode().ljust(width)
        (folder / "a.edf").write_bytes(bytes(data))

    return change


_COUNT = len(inputs.NAMES)
_PHYSICAL = 256 + _COUNT * (16 + 80 + 8)
_SAMPLES = _PHYSICAL + _COUNT * (4 * 8 + 80)
for _text in ("0", "-1", "1e-320", "1e9", "-inf", "nan", "", "one"):
    case(f"edf_duration_{_text}", "edf", words=("a.edf",))(_field(244, 8, _text))
for _text in ("10.5", "-5", "99999999", "0", "1e3"):
    _change = _field(_SAMPLES, 8, _text)
    case(f"edf_samples_{_text}", "edf", words=("a.edf",))(_change)
for _text in ("9999", "0", "-1"):
    case(f"edf_signals_{_text}", "edf", words=("a.edf",))(_field(252, 4, _text))
case("edf_records_many", "edf", words=("a.edf",))(_field(236, 8, "99999999"))
case("edf_no_range", "edf", EITHER)(  # Read, the channels are marked as bad.
    _field(_PHYSICAL, 16 * _COUNT, "5       " * 2 * _COUNT)
)


@case("fif_points_backwards", "fif", words=("a_raw.fif",))
def _fif(folder: Path) -> None:
    """Lets a tag near the end name one near the start as the next."""
    path = folder / "a_raw.fif"
    data = bytearray(path.read_bytes())
    where, tags = 0, []
    while where + 16 <= len(data):
        tags.append(where)
        size, following = (
            int.from_bytes(data[where + i : where + i + 4], "big", signed=True)
            for i in (8, 12)
        )
        if following < 0:
            break
        where = following or where + 16 + size
    # No directory: tags are then followed one by one.
    data[tags[1] + 16 : tags[1] + 20] = (-1).to_bytes(4, "big", signed=True)
    data[tags[-2] + 12 : tags[-2] + 16] = tags[2].to_bytes(4, "big")
    path.write_bytes(bytes(data))


def _labels(text: str | bytes) -> Callable[[Path], Any]:
    data = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / "labels.csv").write_bytes(data)


def _rows(*labels: str, step: float = 0.0, count: int = 1, files: int = 3) -> str:
    rows = ["file,subject,onset,duration,label"]
    for k in range(count):
        rows += [
            f"s{i}/p{i}.edf,{i},{2.0 + k * step:.6f},{step or 4},{label}"
            for i in range(files)
            for label in labels
        ]
    return "\n".join(rows)


_WORDS = ("labels.csv",)
case("labels_latin1", "labels", words=_WORDS)(
    _labels(_rows("Müller").encode("latin-1"))
)
case("labels_utf16", "labels", SAME)(_labels(_rows("a").encode("utf-16")))
case("labels_nul", "labels", words=_WORDS)(_labels(_rows("a\0b")))
case("labels_a_cell_of_200_kB", "labels", words=_WORDS)(_labels(_rows("a" * 200_000)))
case("labels_an_open_quote", "labels", words=_WORDS)(
    _labels(_rows("a") + '\n"s0/p0.edf,0,1,1,b\n')
)
case("labels_many_rows", "labels", EITHER)(
    _labels(_rows("a", step=1e-4, count=100_000, files=1))
)
case("labels_many_classes", "labels", EITHER)(
    _labels(_rows(*(f"c{i}" for i in range(7_000))))
)
for _i, _name in enumerate(("[/red]", "[bold]a", "$\\frac{", "<b>", "{0}%s", "=1+1")):
    case(f"labels_markup_{_i}", "labels", SAME)(_labels(_rows(_name)))
for _i, _name in enumerate(("\x1b[31ma", "\u202ea", "\x85a", "\u2066a", "a\x7f")):
    case(f"labels_control_{_i}", "labels", EITHER)(_labels(_rows(_name)))


@case("folder_pipe", "folder", EITHER)
def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "s0" / "b.edf")


@case("folder_pipe_of_labels", "folder", words=_WORDS)
def _pipe_of_labels(folder: Path) -> None:
    (folder / "labels.csv").unlink()
    os.mkfifo(folder / "labels.csv")


@case("folder_link_to_parent", "folder", EITHER, same=True)
def _to_parent(folder: Path) -> None:
    (folder / "s0" / "again").symlink_to("..")


@case("folder_two_links_to_parent", "folder", EITHER, same=True)
def _to_parent_twice(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / "s0" / name).symlink_to("..")


@case("folder_links_to_each_other", "folder", EITHER, same=True)
def _each_other(folder: Path) -> None:
    (folder / "s0" / "x").symlink_to("../s1")
    (folder / "s1" / "y").symlink_to("../s0")


@case("folder_link_to_itself", "folder", EITHER, same=True)
def _to_itself(folder: Path) -> None:
    (folder / "s0" / "b.edf").symlink_to("b.edf")


@case("folder_link_to_zeros", "folder", EITHER, same=True)
def _to_zeros(folder: Path) -> None:
    (folder / "s0" / "b.edf").symlink_to("/dev/zero")


@case("folder_name_not_utf8", "folder", EITHER)
def _not_utf8(folder: Path) -> None:
    os.rename(os.fsencode(folder / "s0"), os.fsencode(folder) + b"/\xff\xfe")
    (folder / "labels.csv").unlink()


def _about(text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "windows.json").write_text(text)


_GOOD = {"channels": ["C3", "Cz", "C4"], "rate": 50, "unit": "uV"}
for _name, _value in {
    "list": "[]",
    "text": '"a"',
    "number": "5",
    "null": "null",
    "deep": "[" * 100_000 + "]" * 100_000,
    "channels_text": json.dumps(_GOOD | {"channels": "C3z"}),
    "channels_numbers": json.dumps(_GOOD | {"channels": [1, 2, 3]}),
    "channels_twice": json.dumps(_GOOD | {"channels": ["C3", "C3", "C4"]}),
    "rate_true": json.dumps(_GOOD | {"rate": True}),
    "rate_nan": json.dumps(_GOOD | {"rate": float("nan")}),
    "rate_huge": json.dumps(_GOOD | {"rate": 10**400}),
    "rate_text": json.dumps(_GOOD | {"rate": "50"}),
    "unit_list": json.dumps(_GOOD | {"unit": ["uV"]}),
    "classes_text": json.dumps(_GOOD | {"classes": "ab"}),
    "classes_object": json.dumps(_GOOD | {"classes": {"rest": 1, "task": 2}}),
    "classes_numbers": json.dumps(_GOOD | {"classes": [1, 2]}),
    "classes_twice": json.dumps(_GOOD | {"classes": ["a", "a"]}),
    "surrogate": '{"channels": ["C3", "Cz", "\\ud800"], "rate": 50, "unit": "uV"}',
}.items():
    _free = ("surrogate", "classes_numbers", "channels_twice")  # These are numbered.
    _kinds = EITHER if _name in _free else REFUSED
    case(f"windows_json_{_name}", "windows_json", _kinds)(_about(_value))


def _npz(**changes: Any) -> Callable[[Path], Any]:
    """Writes other arrays into the sound file."""

    def change(folder: Path) -> None:
        with np.load(folder / "a.npz") as file:
            arrays = {name: file[name] for name in file.files}
        made = {name: value(arrays) for name, value in changes.items()}
        np.savez_compressed(folder / "a.npz", **{**arrays, **made})

    return change


case("npz_pickled", "npz", words=("a.npz",))(
    _npz(signal=lambda _: np.array([formats.Planted()], object))
)
case("npz_pickled_labels", "npz", words=("a.npz",))(
    _npz(label=lambda _: np.array([formats.Planted()] * 10, object))
)
case("npz_infinite_in_float32", "npz", words=("a.npz",))(
    _npz(signal=lambda a: a["signal"].astype(float) * 1e300)
)
case("npz_one_nan", "npz", words=("a.npz",))(
    _npz(signal=lambda a: np.where(np.arange(100) == 50, np.nan, a["signal"]))
)
case("npz_labels_nan", "npz", EITHER)(_npz(label=lambda _: np.full(10, np.nan)))


def _head(*shape: int, descr: str = "<f4") -> bytes:
    stream = io.BytesIO()
    head = {"shape": shape, "descr": descr, "fortran_order": False}
    npy.write_array_header_1_0(stream, head)
    return stream.getvalue()


@case("npz_header_of_5e12_numbers", "npz", words=("a.npz",))
def _many_numbers(folder: Path) -> None:
    content = _head(10, 3, 5 * 10**12 // 30) + bytes(100)
    _replaced(folder / "a.npz", content)


@case("npy_header_of_5e12_numbers", "npy", words=("b.npy",))
def _many_numbers_alone(folder: Path) -> None:
    (folder / "b.npy").write_bytes(_head(10, 3, 5 * 10**12 // 30) + bytes(100))


@case("npz_inflates_to_3_GB", "npz", words=("a.npz",))
def _inflating(folder: Path) -> None:
    """Repeats one packed stretch of zeros: packing all of them takes long."""
    piece, count = 1 << 24, 180
    head = _head(10, 3, piece * count // 120)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += zeros * count + packer.flush()
    whole = len(head) + piece * count
    info = zipfile.ZipInfo("signal.npy")
    info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, whole
    info.compress_size, info.CRC, info.header_offset = len(packed), 0, 0
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.fp.write(info.FileHeader(False) + packed)  # type: ignore[union-attr]
        file.filelist.append(info)
        file.start_dir = file.fp.tell()  # type: ignore[union-attr]
        file._didModify = True  # type: ignore[attr-defined]
        with np.load(folder / "a.npz") as arrays:
            for name in ("label", "subject"):
                member = io.BytesIO()
                np.save(member, arrays[name])
                file.writestr(f"{name}.npy", member.getvalue())
    (folder / "a.npz").write_bytes(stream.getvalue())


def _replaced(path: Path, content: bytes, name: str = "signal.npy") -> None:
    with zipfile.ZipFile(path) as file:
        members = {n: file.read(n) for n in file.namelist()}
    path.write_bytes(formats.zipped({**members, name: content}.items()))


@case("npz_damaged_inside", "npz", words=("a.npz",))
def _damaged_inside(folder: Path) -> None:
    data = bytearray((folder / "a.npz").read_bytes())
    data[200:260] = b"\xff" * 60
    (folder / "a.npz").write_bytes(bytes(data))
