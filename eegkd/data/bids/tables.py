"""Tables and JSON files of a BIDS data set, read without a guess."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eegkd.errors import InputError
from eegkd.host.json_file import MOST_BYTES, read_json
from eegkd.host.text_file import decode_text

_MISSING = ("", "n/a", "nan")


class Row(NamedTuple):
    """One line of a table: its number in the file, and its cells by column."""

    line: int
    cells: Mapping[str, str]


class Table(NamedTuple):
    """A table of tab-separated cells, which hold no tabs and no line ends."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def is_missing(cell: str) -> bool:
    """Checks whether a cell says that there is no value: "n/a", "NaN" or nothing."""
    return cell.casefold() in _MISSING


def read_table(path: Path, needs: tuple[str, ...]) -> Table:
    """Reads a table with a line of column names.

    Windows line ends, a byte order mark (also of UTF-16), spaces around cells, quotes
    around a whole cell, empty lines and empty cells past the last column do not matter.

    Args:
        path: The `.tsv` file.
        needs: Columns that it must have.

    Raises:
        InputError: If the file cannot be read, is no UTF-8, lacks a column, names one
            twice, or has a line with another number of cells.
    """
    lines = re.split(r"\r\n|\n|\r", read_text(path))
    rows = [
        (number, [_bare(cell) for cell in line.split("\t")])
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    columns = rows[0][1] if rows else []
    while columns and not columns[-1]:
        columns = columns[:-1]
    missing = [name for name in needs if name not in columns]
    if missing:
        found = ", ".join(columns) or "nothing"
        raise InputError(
            f"{path}: no column {missing[0]} (its first line has: {found}). Its first "
            "line must name the columns, with tabs between them."
        )
    twice = [name for i, name in enumerate(columns) if name in columns[:i]]
    if twice:
        raise InputError(f"{path}: two columns are called {twice[0]!r}. Rename one.")
    return Table(
        path, tuple(columns), tuple(_row(path, columns, *row) for row in rows[1:])
    )


def _row(path: Path, columns: list[str], number: int, cells: list[str]) -> Row:
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        raise InputError(
            f"{path}, line {number}: {len(cells)} cells for {len(columns)} columns. "
            "Put one tab between cells, and n/a where there is no value."
        )
    return Row(number, dict(zip(columns, cells, strict=False)))


def _bare(cell: str) -> str:
    cell = cell.strip()
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"').strip() if quoted else cell


def read_number(table: Table, row: Row, column: str) -> float | None:
    """Returns the number in a cell; None where it is missing.

    Raises:
        InputError: If the cell holds something else, or infinity.
    """
    text = row.cells[column]
    if is_missing(text):
        return None
    try:
        value = math.nan if "_" in text else float(text)  # Python reads 1_0 as 10.
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{table.path}, line {row.line}: {column} is {text!r}. Write a number of "
            "seconds, as 12.5, or n/a."
        )
    return value


def read_object(path: Path) -> Mapping[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
        InputError: If it cannot be read, or holds something else.
    """
    check_present(path)
    cure = "Correct it, or copy it again."
    return read_json(path, dict[str, Any], cure=cure, strict=False)


def read_text(path: Path) -> str:
    """Reads a text file whole.

    Raises:
        InputError: If it is no regular file, a link to nothing, too large or no UTF-8.
    """
    check_present(path)
    if not path.is_file():
        raise InputError(f"{path}: no regular file. Put the table itself there.")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(
            f"{path}: larger than {MOST_BYTES >> 20} MiB, so it is no such table. Look "
            "what it is."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Check its permissions."
        ) from error
    return decode_text(
        path,
        data,
        no_utf8="not UTF-8, which BIDS prescribes. Save the file as UTF-8 (iconv -f "
        "latin1 -t utf8, if it is Latin-1).",
        nul="a NUL byte, so this is no text. Copy the file again.",
    )


def check_present(path: Path) -> None:
    """Checks that a listed file has its content here.

    DataLad and git-annex leave a link to nothing, or a file of one line that names the
    content, where the content was not fetched; so does Git LFS.

    Raises:
        InputError: If it has not.
    """
    if not path.exists():
        raise InputError(
            f"{path}: a link whose file is not here. Fetch it (datalad get, or git "
            "annex get), or choose recordings that are with --data.entities."
        )
    if path.is_file() and path.stat().st_size < 1024:
        start = path.read_bytes()[:64]
        if start.startswith((b"/annex/objects/", b"version https://git-lfs")):
            raise InputError(
                f"{path}: a pointer to a file that is not here. Fetch it (datalad get, "
                "git annex get or git lfs pull), or choose recordings that are with "
                "--data.entities."
            )
