"""Damage to binary formats that keeps them readable: headers, members, pickles."""

import functools
import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.lib import format as npy

from tests.fuzz.mutations import (
    NUMBERS,
    TEXTS,
    Mutation,
    flip_bits,
    json_value,
    nan_word,
)

PLANTED = "unpickled"
"""The file that a planted pickle makes, should anybody load it."""
_EDF_FIELDS = ((0, 8), (168, 8), (176, 8), (184, 8), (192, 44), (236, 8), (244, 8))
_EDF_COUNT = (252, 4)
_EDF_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)


class Planted:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns what a pickle calls."""
        return Path.touch, (Path(PLANTED),)


def edf_field(data: bytes, rng: Random) -> bytes:
    """Writes another text into one field of an EDF or BDF header."""
    count = (len(data[:256]) == 256 and data[252:256].strip().isdigit()) and int(
        data[252:256]
    )
    fields = [*_EDF_FIELDS, _EDF_COUNT]
    start = 256
    for width in _EDF_WIDTHS if count else ():
        fields += [(start + width * i, width) for i in range(count)]
        start += width * count
    where, width = rng.choice(fields)
    text = rng.choice((*NUMBERS, *NUMBERS, *TEXTS)).encode("utf-8")[:width]
    return data[:where] + text.ljust(width) + data[where + width :]


def npy_array(data: bytes, rng: Random) -> bytes:
    """Writes another header before an array, or another array: NaN, objects, less."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    stream = io.BytesIO()
    if rng.random() < 0.4:
        head: Any = npy.header_data_from_array_1_0(array)
        head[rng.choice(("shape", "descr"))] = rng.choice(
            ((10**12, 5), (0,), (), (-1,), (2**62, 4), "<f8", "<i4", "|O", "<U9", "|V4")
        )
        npy.write_array_header_1_0(stream, head)
        return stream.getvalue() + array.tobytes()
    changed = rng.choice(
        (
            lambda a: np.array([Planted()], object),
            lambda a: a[:1],
            lambda a: a.reshape(-1),
            lambda a: a[..., None],
            lambda a: np.array(a, str),
            lambda a: a.astype(complex) if a.dtype.kind in "fiu" else a,
            lambda a: a * float("nan") if a.dtype.kind == "f" else a[::-1],
            lambda a: a.astype(float) * 1e300 if a.dtype.kind in "fiu" else a[:0],
            lambda a: a - 10**6 if a.dtype.kind in "fi" else a[:0],
        )
    )(array)
    np.save(stream, changed, allow_pickle=True)
    return stream.getvalue()


def zip_member(data: bytes, rng: Random, inner: Mutation = npy_array) -> bytes:
    """Packs a zip anew with one member changed, dropped, renamed or there twice."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = [(name, file.read(name)) for name in file.namelist()]
    i = rng.randrange(len(members))
    name, content = members[i]
    action = rng.randrange(7)
    if action < 4:
        members[i] = name, inner(content, rng)
    elif action == 4:
        del members[i]
    elif action == 5:
        members[i] = rng.choice(("../../outside.npy", "a" * 300, "\u202e.npy")), content
    else:
        members.append(("again_" + name, content))
    return zipped(members)


def zipped(members: Any) -> bytes:
    """Packs (name, content) pairs."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return stream.getvalue()


def deflated(data: bytes, rng: Random) -> bytes:
    """Flips bits in the packed content of a zip, not in its list of members."""
    end = max(1, data.rfind(b"PK\x01\x02"))
    return flip_bits(data[:end], rng) + data[end:]


def safetensors_header(data: bytes, rng: Random) -> bytes:
    """Changes one value of the header, and keeps its stated length right."""
    size = int.from_bytes(data[:8], "little")
    head = data[8 : 8 + size]
    change = _renamed if rng.random() < 0.3 else json_value
    head = change(head, rng)
    return len(head).to_bytes(8, "little") + head + data[8 + size :]


def _renamed(head: bytes, rng: Random) -> bytes:
    """Gives a tensor the name of another with a folder, or a strange one."""
    fields: Mapping[str, Any] = json.loads(head)
    names = [name for name in fields if name != "__metadata__"]
    old, other = rng.choice(names), rng.choice(names)
    new = rng.choice((f"{other}/inside", *TEXTS))
    return json.dumps({new if n == old else n: v for n, v in fields.items()}).encode()


def safetensors_values(data: bytes, rng: Random) -> bytes:
    """Writes NaN or infinity among the values."""
    start = 8 + int.from_bytes(data[:8], "little")
    return data[:start] + nan_word(data[start:], rng)


def pickled(data: bytes, rng: Random) -> bytes:
    """Returns a pickle that makes a file when it is loaded."""
    del data
    return pickle.dumps(Planted(), protocol=rng.choice((2, 4)))


def resealed(mutation: Mutation) -> Mutation:
    """Returns the mutation with a record's own hash made right again behind it."""

    @functools.wraps(mutation)
    def changed(data: bytes, rng: Random) -> bytes:
        from eegkd.host.sealed import seal

        new = mutation(data, rng)
        try:
            record = json.loads(new)
        except (ValueError, RecursionError):
            return new
        return seal(record).encode() if isinstance(record, dict) else new

    return changed
