"""The door for text that people and spreadsheets write: tables and lists."""

import codecs
from pathlib import Path

from eegkd.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(path: Path, data: bytes, *, no_utf8: str, nul: str) -> str:
    """Decodes UTF-8, or UTF-16 where a mark of byte order says so.

    Args:
        path: The file, for the message.
        data: Its bytes.
        no_utf8: What to say of a line in another code; "{byte}" is its first one.
        nul: What to say of a line that holds a NUL byte, as no text does.

    Raises:
        InputError: If it is neither, naming the line.
    """
    encoding = next((e for mark, e in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        said = no_utf8.format(byte=f"{data[error.start]:#04x}")
        raise InputError(f"{path}, line {line}: {said}") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path}, line {line}: {nul}")
    return text
