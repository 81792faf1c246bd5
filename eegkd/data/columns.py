"""Columns of labels and names as texts, by one rule whatever type they came in.

Numbers are kept as floats, unsigned integers or texts ("1.0") by the programs that they
have been through. At this door 1, 1.0 and "1.0" are one name, and what stands for no
value is "" and never a name.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from eegkd.data.corpora import SEPARATOR, UNLABELLED, not_asked
from eegkd.errors import InputError

NO_LABEL = ("", "-1", UNLABELLED, "nan", "NaN", "NAN", "<NA>", "NaT", "n/a")
"""Labels that are none, unless a class is called so."""
_DOUBTFUL = ("None", "NA", "N/A", "#N/A", "null", "NULL")
"""What programs write for no value, and what may as well be a class."""
_WHOLE = re.compile(r"([+-]?\d+)(?:\.0*)?")


def to_texts(path: Path, name: str, values: np.ndarray) -> tuple[str, ...]:
    """Returns a column's values as texts without blanks around them; none is "".

    Whole floats are written as integers are. NaN is none.

    Raises:
        InputError: If values are no texts or numbers, or infinite.
    """
    kind = values.dtype.kind
    if kind == "S":
        values, kind = np.char.decode(values, "utf-8", "backslashreplace"), "U"
    if kind not in "Ubiuf":
        raise InputError(
            f"{path}: {name} is of type {values.dtype}. Save texts or numbers."
        )
    if kind == "f" and np.isinf(values).any():
        row = int(np.argmax(np.isinf(values)))
        raise InputError(
            f"{path}: {name} of window {row} is {values[row]}. Correct it; NaN, or an "
            "empty text, is none."
        )
    if kind == "f":
        return tuple(map(_of_float, values.tolist()))
    return tuple(str(value).strip() for value in values.tolist())


def _of_float(value: float) -> str:
    if value != value:
        return ""
    return str(int(value)) if value.is_integer() else str(value)


def to_labels(
    path: Path, values: np.ndarray, classes: Collection[str] = ()
) -> tuple[str, ...]:
    """Returns labels as texts; a window that nobody judged has "".

    None are -1, NaN, empty texts and those of `NO_LABEL`, whatever the type.

    Args:
        path: File of the labels, for messages.
        values: One label per window: texts, numbers or booleans.
        classes: Names of the classes, where they are listed; those are taken as they
            are.

    Raises:
        InputError: If a number is negative and not -1, a fraction, or what -1 becomes
            in an unsigned type; or if a text may be a class as well as none.
    """
    texts = to_texts(path, "label", values)
    if values.dtype.kind == "u" and not classes:
        _refuse_wrapped(path, values)
    if values.dtype.kind == "b" and classes:
        texts = tuple("1" if value else "0" for value in values.tolist())
    known = frozenset(classes)
    kept = {text: _label(text, known) for text in set(texts)}
    for row, text in enumerate(texts):
        if kept[text] is None:
            raise InputError(
                f"{path}: the label of window {row} is {text!r}. A label is a class's "
                "name, or its number from 0; -1 or an empty one is none. Correct it, "
                "or list it as a class in windows.json."
            )
    return tuple(str(kept[text]) for text in texts)


def _label(text: str, classes: Collection[str]) -> str | None:
    """Returns a label as it is compared with others; None where it can be none."""
    if SEPARATOR in text:
        parts = (part.strip() for part in text.split(SEPARATOR))
        return SEPARATOR.join(_whole(part, classes) for part in parts)
    text = _whole(text, classes)
    if text in classes:
        return text
    if text in NO_LABEL:
        return ""
    bad = text in _DOUBTFUL or re.fullmatch(r"[+-]\d*\.?\d+|\d*\.\d+", text)
    return None if bad else text


def _whole(text: str, classes: Collection[str]) -> str:
    """Writes a whole number as an integer is written."""
    found = None if text in classes else _WHOLE.fullmatch(text)
    return found[1].removeprefix("+") if found else text


def _refuse_wrapped(path: Path, values: np.ndarray) -> None:
    """Refuses the largest number of an unsigned type, which is what -1 becomes."""
    most = np.iinfo(values.dtype).max
    wrapped = values == most
    if wrapped.any() and not (values == most - 1).any():
        raise InputError(
            f"{path}: the label of window {int(np.argmax(wrapped))} is {most}, which "
            f"is what -1 becomes in {values.dtype}. Save labels as signed integers, or "
            "list the classes in windows.json."
        )


def rows_to_texts(
    path: Path, values: np.ndarray, classes: Sequence[str], listed_in: Path
) -> np.ndarray:
    """Returns rows of k labels, 1 yes, 0 no and -1 not asked, as texts of names.

    Args:
        path: File of the labels, for messages.
        values: `[n, k]`.
        classes: Names of the columns.
        listed_in: File that lists the names, for messages.

    Raises:
        InputError: If the names do not fit the columns, or another value is there.
    """
    if values.shape[1] != len(classes) or any(SEPARATOR in name for name in classes):
        raise InputError(
            f"{path}: label is of shape {list(values.shape)}, and {listed_in} lists "
            f"{len(classes)} classes. List there, in `classes`, the name of each "
            f"column, without {SEPARATOR!r}."
        )
    if values.dtype.kind not in "biuf" or not np.isin(values, (-1, 0, 1)).all():
        raise InputError(
            f"{path}: a label of several classes is 1 (yes), 0 (no) or -1 (not asked) "
            "for each; other values are in it. Correct them."
        )
    none = ("",) * len(classes)
    words = {1: classes, 0: none, -1: tuple(map(not_asked, classes))}
    rows = values.astype(int).tolist()
    # A separator behind each: one class alone is then no single label.
    texts = [[words[x][k] for k, x in enumerate(row)] + [""] for row in rows]
    return np.array([SEPARATOR.join(text) for text in texts], str)
