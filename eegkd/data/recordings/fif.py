"""A check of a FIF file's tags before MNE follows them.

A FIF file is a chain of tags, each of four big-endian int32 (kind, type, size of its
data, place of the next tag) and its data; 0 is the tag right after it. The second tag
says where the directory of all tags lies. MNE follows the chain where there is no
directory, and a chain that points backwards never ends.

References:
    Elekta Neuromag: Functional Image File Format Description, 1.3.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from eegkd.errors import InputError

_TAG = np.dtype([("kind", ">i4"), ("type", ">i4"), ("size", ">i4"), ("next", ">i4")])
_FILE_ID, _DIR_POINTER, _DIRECTORY, _BLOCK_END = 100, 101, 102, 105


def check_fif(path: Path) -> None:
    """Checks that the tags of a FIF file lie inside it, one after the other.

    A compressed one (.fif.gz) is not to be given: that would inflate it twice.

    Raises:
        InputError: If it is no FIF file, is cut short, or its tags point backwards.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = _tag(file, 0)
        if first is None or (first["kind"], first["size"]) != (_FILE_ID, 20):
            return  # MNE says so in its own words.
        pointer = _tag(file, 36)
        if pointer is None or pointer["kind"] != _DIR_POINTER:
            return
        place = int.from_bytes(file.read(4), "big", signed=True)
        if place > 0:
            _check_directory(path, file, place, size)
        else:
            _check_chain(path, file, size)


def _tag(file: BinaryIO, place: int) -> np.void | None:
    file.seek(place)
    data = file.read(_TAG.itemsize)
    return np.frombuffer(data, _TAG)[0] if len(data) == _TAG.itemsize else None


def _check_directory(path: Path, file: BinaryIO, place: int, size: int) -> None:
    tag = _tag(file, place)
    if tag is None or place + 16 + int(tag["size"]) > size:
        raise _damaged(path, f"cut short: its directory should lie at byte {place}")
    if tag["kind"] != _DIRECTORY or tag["size"] % 16 or tag["size"] < 16:
        raise _damaged(path, f"damaged: no directory lies at byte {place}")
    # An entry has the place of its tag where a tag has that of the next one.
    entries = np.frombuffer(file.read(int(tag["size"])), _TAG)
    ends = entries["next"].astype(np.int64) + 16 + entries["size"]
    used = entries["kind"] > 0
    wrong = used & ((entries["next"] < 0) | (entries["size"] < 0) | (ends > size))
    if wrong.any():
        raise _damaged(path, "cut short: its directory names parts past its end")


def _check_chain(path: Path, file: BinaryIO, size: int) -> None:
    place, last = 0, _FILE_ID
    while (tag := _tag(file, place)) is not None:
        after = place + 16 + max(int(tag["size"]), 0)
        if tag["next"] == 0:
            following = after
        elif tag["next"] > 0:
            following = int(tag["next"])
        else:
            return
        if tag["size"] < 0 or following <= place:
            raise _damaged(path, f"damaged: the tag at byte {place} points backwards")
        if after > size:
            raise _damaged(path, f"cut short inside the part at byte {place}")
        place, last = following, tag["kind"]
    if last != _BLOCK_END:  # Whole files end with one, or with a tag without a next.
        raise _damaged(path, f"cut short at byte {place}, inside a block")


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path}: the file is {what}. Copy or save it again.")
