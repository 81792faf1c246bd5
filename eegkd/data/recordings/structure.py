"""What a header says of a file's own structure, looked at before a reader believes it.

These checks are cheap, and only of what makes a reader block, flood the memory or walk
in circles: the rest a reader says in its own words. EDF and BDF have `edf`, FIF `fif`.
"""

import importlib.util
import re
import zlib
from pathlib import Path
from typing import BinaryIO

from eegkd.data.recordings.fif import check_fif
from eegkd.data.recordings.guard import check_companions, check_size
from eegkd.errors import InputError

_GDF_SIGNAL_BYTES = 256
_MOST_DIGITS = 20
_MAT_HEADER = 128
_MAT_COMPRESSED = 15


def check_structure(path: Path) -> None:
    """Checks a recording by its suffix, before MNE opens it.

    Raises:
        InputError: If it would block, flood the memory or never end.
    """
    suffix = path.suffix.lower()
    if suffix == ".gdf":
        _check_gdf(path)
    elif suffix in (".vhdr", ".ahdr"):
        _check_vhdr(path)
    elif suffix == ".set":
        _check_set(path)
    elif suffix == ".fif":
        check_fif(path)


def _check_gdf(path: Path) -> None:
    """Refuses a header of more signals than the file has bytes for."""
    with path.open("rb") as file:
        fixed = file.read(256)
    is_old = fixed[:8] < b"GDF 1.90"
    count = int.from_bytes(fixed[252 : 256 if is_old else 254], "little")
    if (
        fixed.startswith(b"GDF")
        and _GDF_SIGNAL_BYTES * (count + 1) > path.stat().st_size
    ):
        raise InputError(
            f"{path}: its header speaks of {count} signals, which the file is too "
            "short for. Copy or download it again, or check its suffix is right."
        )


def _check_vhdr(path: Path) -> None:
    """Refuses a header of more channels than it has lines for, and parts that block."""
    text = path.read_bytes()
    parts = re.findall(rb"^(?:DataFile|MarkerFile)=([^\r\n]+)", text, re.MULTILINE)
    check_companions(path, (name.decode("utf-8", "replace") for name in parts))
    for number in re.findall(rb"^NumberOfChannels=(\d+)", text, re.MULTILINE):
        if int(number[:_MOST_DIGITS]) > len(text):
            raise InputError(
                f"{path}: NumberOfChannels={number[:_MOST_DIGITS].decode()}, which the "
                "header has no lines for. Correct it, or copy the file again."
            )


def _check_set(path: Path) -> None:
    """Looks for parts that block or flood, and for the package of MATLAB 7.3 files."""
    with path.open("rb") as file:
        head = file.read(2**20)
    named = re.findall(rb"[\w. -]{1,99}\.fdt", head)
    names = {f"{path.stem}.fdt", *(name.decode("ascii", "replace") for name in named)}
    check_companions(path, sorted(names))
    is_hdf5 = (
        head.startswith((b"MATLAB 7.3", b"\x89HDF")) or head[512:516] == b"\x89HDF"
    )
    if is_hdf5 and importlib.util.find_spec("pymatreader") is None:
        raise InputError(
            f"{path}: EEGLAB saved it as MATLAB 7.3 (HDF5). Install the package that "
            "reads these (pip install pymatreader), or save it in EEGLAB as version 7 "
            "or 6 (Preferences)."
        )
    with path.open("rb") as file:
        check_size(path, 1, _inflated(file, head) // 8)


def _inflated(file: BinaryIO, head: bytes) -> int:
    """Returns the bytes that compressed variables of a MAT-file say they inflate to.

    Each is (15, bytes in the file) and a zlib stream, which begins with (14, bytes).
    """
    order = "little" if head[126:128] == b"IM" else "big"
    place, total = _MAT_HEADER, 0
    while len(tag := _at(file, place, 8)) == 8:
        kind, size = (int.from_bytes(tag[i : i + 4], order) for i in (0, 4))
        if kind != _MAT_COMPRESSED or not head.startswith(b"MATLAB 5"):
            return total
        try:
            inner = zlib.decompressobj().decompress(_at(file, place + 8, 64), 8)
        except zlib.error:
            return total  # MATLAB's own reader says so.
        total += int.from_bytes(inner[4:8], order)
        place += 8 + size
    return total


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
