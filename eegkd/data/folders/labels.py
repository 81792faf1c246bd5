"""The table of labels of a folder: `labels.csv`, as people and spreadsheets write it.

Its text is UTF-8, or UTF-16 with a mark that says so; its cells are separated by
commas, semicolons or tabs, whichever its first line holds. Empty rows, columns and
cells of "n/a" are none.
"""

import csv
import dataclasses
import io
import math
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eegkd.data.corpora import SEPARATOR, UNLABELLED, split_label
from eegkd.data.folders.listing import kind_of, missing_target
from eegkd.data.recordings.signals import is_bad
from eegkd.errors import InputError
from eegkd.host.json_file import MOST_BYTES
from eegkd.host.text_file import decode_text

LABELS_FILE = "labels.csv"
BACKGROUND = "background"
COLUMNS = ("file", "subject", "onset", "duration", "label")
_SAVE = 'Save it again as "CSV UTF-8 (comma delimited)".'
_EMPTY = ("", "n/a")
# What programs write for nothing; as a number of seconds it is refused.
_NOTHING = ("nan", "null")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of labels.csv; no onset means the whole recording."""

    line: int
    subject: str
    label: str
    onset_s: float | None
    duration_s: float | None


Table = Mapping[Path, Sequence[Row]]
"""Rows by recording, in their order in the file."""


def find_labels(root: Path) -> Path | None:
    """Returns the table at the top of a folder, its name in any case; None if none.

    Raises:
        InputError: If there are two, or it is no file that can be read.
    """
    names = sorted(x for x in os.listdir(root) if x.casefold() == LABELS_FILE)
    if not names:
        return None
    if len(names) > 1:
        raise InputError(
            f"{root} holds {' and '.join(names)}. Leave one of them there, called "
            f"{LABELS_FILE}."
        )
    path = root / names[0]
    if not path.exists():
        raise missing_target(path)
    if not path.is_file():
        kind = kind_of(path.stat().st_mode)
        raise InputError(
            f"{path} is {kind}, not a file, and is not opened. Put the table of labels "
            "there, or rename it."
        )
    return path


def read_labels(
    path: Path, files: Sequence[Path], aside: Mapping[Path, str] | None = None
) -> Table:
    """Reads the rows of labels.csv by recording.

    Args:
        path: The table; column file is relative to its folder.
        files: Recordings.
        aside: Files that are no recordings -> why, for the message.

    Raises:
        InputError: If it is no such table, a row is wrong, or a row's file is not among
            the recordings.
    """
    find, rows = _Finder(path.parent, files), dict[Path, list[Row]]()
    lost: list[tuple[int, str]] = []
    decimal_comma, lines = _lines(path)
    for number, cells in lines:
        file = find(cells["file"])
        if file is None:
            lost.append((number, cells["file"]))
        else:
            row = _row(path, number, cells, decimal_comma)
            rows.setdefault(file, []).append(row)
    for number, name in lost:
        if why := (aside or {}).get(path.parent / name):
            raise InputError(
                f"{path}, line {number}: {name!r} is no recording of its own ({why}). "
                "Remove the row, or name the recording itself."
            )
    if lost and not rows:
        raise InputError(
            f"{path} names none of the recordings in {path.parent} (first: "
            f"{lost[0][1]!r}): it belongs to other recordings. Column file is relative "
            "to the folder."
        )
    if lost:
        raise InputError(
            f"{path}, line {lost[0][0]}: no recording {lost[0][1]!r} in {path.parent} "
            f"({len(lost)} such rows). Column file is relative to the folder; correct "
            "it or remove the row."
        )
    return rows


class _Finder:
    r"""Finds recordings by what column file says, each name once.

    A name that is no path of one is compared without its case, with "/" for "\", and
    with accents in one form: systems differ in these, and where that leaves one
    recording, it is meant.
    """

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self.exact = {os.path.realpath(file): file for file in files}
        self.folded: dict[str, list[Path]] = {}
        for file in files:
            name = _folded(file.relative_to(root).as_posix())
            self.folded.setdefault(name, []).append(file)
        self.found: dict[str, Path | None] = {}

    def __call__(self, name: str) -> Path | None:
        if name not in self.found:
            exact = self.exact.get(os.path.realpath(self.root / name))
            near = self.folded.get(_folded(name.replace("\\", "/")), [])
            self.found[name] = exact or (near[0] if len(near) == 1 else None)
        return self.found[name]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().removeprefix("./")


def _text(path: Path) -> str:
    """Returns the text of a table.

    Raises:
        InputError: If it is too large, or no text in a code that can be told.
    """
    if path.stat().st_size > MOST_BYTES:
        raise InputError(
            f"{path}: {path.stat().st_size:,} bytes are no table of labels "
            f"({MOST_BYTES:,} at most). Is it the right file?"
        )
    return decode_text(
        path,
        path.read_bytes(),
        no_utf8=f"not in UTF-8 (byte {{byte}}). {_SAVE}",
        nul=f"a NUL byte, so no text. {_SAVE}",
    )


def _lines(path: Path) -> tuple[bool, Iterator[tuple[int, dict[str, str]]]]:
    """Returns whether numbers may have a decimal comma, and the cells of every row.

    Raises:
        InputError: If the columns are not those of a table of labels.
    """
    text = _text(path)
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    first = next(_rows(path, reader), (1, []))[1]
    columns = [name.strip().lower() for name in first]
    while columns and not columns[-1]:
        columns.pop()
    _check_columns(path, columns)
    return delimiter == ";", _cells(path, reader, columns)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    unknown = [name for name in columns if name not in COLUMNS]
    missing = [name for name in ("file", "label") if name not in columns]
    twice = [name for name in columns if columns.count(name) > 1]
    if unknown or missing or twice:
        what = f"no column {missing[0]}" if missing else f"two columns {twice[0:1]}"
        what = f"unknown column {unknown[0]!r}" if unknown else what
        raise InputError(
            f"{path}: {what}. Its first line must name the columns, of "
            f"{','.join(COLUMNS)}; file and label are required."
        )


def _rows(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a table that are not empty, with their lines."""
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num}: no row of a table ({error}). Is a "
                "double quote missing, or is it another file?"
            ) from error
        if row is None:
            return
        if any(map(str.strip, row)):
            yield reader.line_num, row


def _cells(
    path: Path, reader: Any, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    for line, row in _rows(path, reader):
        cells = [cell.strip() for cell in row]
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            raise InputError(
                f"{path}, line {line}: not as many cells as columns. Put text "
                "that holds a comma in double quotes."
            )
        if any("\n" in cell or "\r" in cell for cell in cells):
            raise InputError(
                f"{path}, line {line}: a cell goes over several lines. Close its "
                "double quote."
            )
        cells = ["" if cell.lower() in _EMPTY else cell for cell in cells]
        named = dict(zip(columns, cells, strict=False))
        for column in ("subject", "label"):
            if named.get(column, "").lower() in _NOTHING:
                named[column] = ""
        yield line, named


def _row(path: Path, number: int, cells: Mapping[str, str], decimal_comma: bool) -> Row:
    if not cells["label"]:
        raise InputError(
            f"{path}, line {number}: the label is empty. Fill it in, or remove the "
            "row: a recording without a row is unlabelled."
        )
    onset, duration = (cells.get(name, "") for name in ("onset", "duration"))
    if bool(onset) != bool(duration):
        raise InputError(
            f"{path}, line {number}: give both onset and duration in seconds, or "
            "neither to label the whole recording."
        )
    if decimal_comma:
        onset, duration = (text.replace(",", ".") for text in (onset, duration))
    return Row(
        number,
        cells.get("subject", ""),
        cells["label"],
        _seconds(path, number, "onset", onset, least=0.0),
        _seconds(path, number, "duration", duration, least=1e-9),
    )


def _seconds(
    path: Path, number: int, column: str, text: str, *, least: float
) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise InputError(
            f"{path}, line {number}: {column} {text!r} is no number of seconds that "
            f"could be one. Write for example {column} 12.5."
        )
    return value


def check_rows(path: Path, table: Table, *, several: bool) -> None:
    """Refuses rows that contradict each other.

    Two rows of one stretch do, where their labels differ; and where a window has one
    class, a row that lies inside one of another class (but `background` and
    `unlabelled`, which stand for the rest). Where windows have several classes, only a
    row of none beside one of some does.

    Raises:
        InputError: Naming both lines.
    """
    for file, rows in table.items():
        ends: list[tuple[float, Row]] = []  # The latest end, and that of another label.
        same: dict[tuple[float, float], Row] = {}
        spans = (_span(row) for row in rows if not is_bad(row.label))
        for onset, stop, row in sorted(spans, key=lambda x: (x[0], -x[1])):
            first = same.setdefault((onset, stop), row)
            outer = first if _differ(first, row, several) else None
            if not several and row.label not in (UNLABELLED, BACKGROUND):
                others = (r for end, r in ends if end >= stop and r.label != row.label)
                outer = outer or next(others, None)
                ends = _latest([*ends, (stop, row)])
            if outer is not None:
                raise _contradiction(path, file, *sorted((outer, row), key=_line))


def _latest(ends: Sequence[tuple[float, Row]]) -> list[tuple[float, Row]]:
    """Keeps the latest end of all, and the latest of another label."""
    best = max(ends, key=lambda x: x[0])
    others = [x for x in ends if x[1].label != best[1].label]
    return [best, *([max(others, key=lambda x: x[0])] if others else [])]


def _line(row: Row) -> int:
    return row.line


def _span(row: Row) -> tuple[float, float, Row]:
    if row.onset_s is None or row.duration_s is None:
        return 0.0, math.inf, row
    return row.onset_s, row.onset_s + row.duration_s, row


def _differ(one: Row, other: Row, several: bool) -> bool:
    if several and UNLABELLED not in (one.label, other.label):
        return bool(_classes(one)) != bool(_classes(other))
    return one.label != other.label and not several


def _classes(row: Row) -> set[str]:
    return set(split_label(row.label)) - {BACKGROUND}


def _contradiction(path: Path, file: Path, one: Row, other: Row) -> InputError:
    where = [
        "as a whole"
        if row.onset_s is None
        else f"from {row.onset_s:g} s for {row.duration_s:g} s"
        for row in (one, other)
    ]
    return InputError(
        f"{path}: {file.relative_to(path.parent).as_posix()} is {one.label!r} "
        f"{where[0]} (line {one.line}) and {other.label!r} {where[1]} (line "
        f"{other.line}). Leave out or shorten one of the rows; if windows may have "
        f"several classes, write them as one label, "
        f"'{one.label}{SEPARATOR}{other.label}'."
    )
