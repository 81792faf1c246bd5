"""Damage to content, blind or by its format: pure functions `(bytes, rng) -> bytes`."""

import json
import re
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]

NUMBERS = (
    *("-1", "0", "1e-320", "1e9", "1e309", "-inf", "nan", "10.5", "1_0", "", "x"),
    *("99999999", "2147483648", "18446744073709551616", "9" * 5000),
)
TEXTS = (
    *("[/red]", "[bold]x", "$\\frac{", "<script>alert(1)</script>", "{0}%s%n", "=1+1"),
    *("\x1b[31mred", "\u202egpj.exe", "\u05e9\u05dc\u05d5\u05dd", "e\u0301" * 9),
    *(
        "../../outside",
        "/dev/zero",
        "a" * 200,
        "\0",
        "\n",
        " ",
        "",
        "-1",
        "nan",
        "\x85",
    ),
)
VALUES = (
    *(None, True, -1, 0, 0.5, 2**63, 10**400, 1e308, float("nan"), float("inf")),
    *([], {}, [[]], {"a": 1}, [None], *TEXTS, "\ud800"),
)
"""What stands in JSON in the place of a value."""
DEEP = "[" * 100_000 + "]" * 100_000
_WORDS = (b"\xff" * 8, b"\xff" * 7 + b"\x7f", bytes(7) + b"\x80", bytes(8))
_HEAD = 4096


def flip_bits(data: bytes, rng: Random) -> bytes:
    """Flips a few bits, half the time near the beginning."""
    changed = bytearray(data)
    end = len(data) if rng.random() < 0.5 else min(len(data), 512)
    for _ in range(rng.randint(1, 16) if data else 0):
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: Random) -> bytes:
    """Cuts off the end: somewhere, a few bytes, or everything."""
    keep = rng.choice((rng.randrange(len(data) + 1), max(0, len(data) - 7), 0))
    return data[:keep]


def _block(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 8, 64, 512, 4096)))


def zero_block(data: bytes, rng: Random) -> bytes:
    """Writes zeros over a stretch."""
    start, stop = _block(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def random_block(data: bytes, rng: Random) -> bytes:
    """Writes noise over a stretch."""
    start, stop = _block(data, rng)
    return data[:start] + rng.randbytes(stop - start) + data[stop:]


def repeat_block(data: bytes, rng: Random) -> bytes:
    """Puts a stretch in twice."""
    start, stop = _block(data, rng)
    return data[:stop] + data[start:]


def drop_block(data: bytes, rng: Random) -> bytes:
    """Leaves a stretch out."""
    start, stop = _block(data, rng)
    return data[:start] + data[stop:]


def huge_word(data: bytes, rng: Random) -> bytes:
    """Writes the largest, smallest or no number over 2, 4 or 8 aligned bytes."""
    size = rng.choice((2, 4, 8))
    start = size * rng.randrange(max(1, min(len(data), _HEAD) // size))
    word = rng.choice(_WORDS)
    word = word[-size:] if rng.random() < 0.5 else word[-size:][::-1]
    return data[:start] + word + data[start + size :]


def nan_word(data: bytes, rng: Random) -> bytes:
    """Writes NaN or infinity over the bytes of a float."""
    kind, size = rng.choice((("<f", 4), ("<d", 8)))
    start = size * rng.randrange(max(1, len(data) // size))
    word = struct.pack(kind, rng.choice((float("nan"), float("inf"))))
    return data[:start] + word + data[start + size :]


def other_number(data: bytes, rng: Random) -> bytes:
    """Writes another number for one in digits, of the same width half the time."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:_HEAD]))
    if not found:
        return huge_word(data, rng)
    match = rng.choice(found)
    text, width = rng.choice(NUMBERS).encode(), match.end() - match.start()
    if rng.random() < 0.5:
        text = text[:width].ljust(width)
    return data[: match.start()] + text + data[match.end() :]


BLIND: Sequence[Mutation] = (
    *(flip_bits, truncate, zero_block, random_block, repeat_block, drop_block),
    *(huge_word, nan_word, other_number),
)


def json_value(data: bytes, rng: Random) -> bytes:
    """Changes one value of JSON: another type, no number, markup; or one field less."""
    root = {"root": json.loads(data)}
    holder, key = rng.choice(list(_places(root)))
    if rng.random() < 0.2 and holder is not root:
        del holder[key]
    elif rng.random() < 0.1 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder.pop(key)
    else:
        holder[key] = rng.choice((*VALUES, DEEP))
    if not root:
        return b""
    text = json.dumps(root.get("root", root))
    return text.replace(json.dumps(DEEP), DEEP).encode()


def _places(value: Any) -> Any:
    """Yields every (list or object, index or key) below a value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(pairs):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def csv_cell(data: bytes, rng: Random) -> bytes:
    """Changes one cell, line or separator of a table."""
    lines = [line.split(b",") for line in data.splitlines()] or [[b""]]
    row = rng.choice(lines)
    cell = rng.randrange(len(row))
    strange = (*NUMBERS, *TEXTS, "b" * 200_000, '"', "a;b", ";", "unlabelled")
    action = rng.randrange(6)
    if action < 3:
        row[cell] = rng.choice(strange).encode()
    elif action == 3:
        row[cell] = b"M\xfcller"
    elif action == 4:
        row.insert(cell, b"")
    else:
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    comma = rng.choice((b",",) * 9 + (b";", b"\t"))
    start = rng.choice((b"",) * 9 + (b"\xef\xbb\xbf", b"\xff\xfe"))
    return start + b"\r\n".join(comma.join(row) for row in lines)


def text_line(data: bytes, rng: Random) -> bytes:
    """Changes the value of a `key=value` line, or repeats or drops a line."""
    lines = data.splitlines() or [b""]
    i = rng.randrange(len(lines))
    key, equals, _ = lines[i].partition(b"=")
    strange = rng.choice((*NUMBERS, *TEXTS)).encode()
    lines[i] = rng.choice(
        (key + equals + strange, strange, lines[i] + b"\n" + lines[i])
    )
    return b"\r\n".join(lines)


def words(data: bytes, rng: Random) -> bytes:
    """Changes one word of a text, such as the header of a WFDB record."""
    found = list(re.finditer(rb"\S+", data[:_HEAD]))
    if not found:
        return data + b"\0"
    match = rng.choice(found)
    strange = rng.choice((*NUMBERS, *TEXTS)).encode()
    return data[: match.start()] + strange + data[match.end() :]
