"""Names as text: what people, classes and files are called, where somebody reads it.

A name may hold anything: markup, mathtext, HTML, the escapes of a terminal, bytes that
are no text. A terminal (`host.terminal`), a page's template and an error are given
`visible` text; a plot and a narrow column are given `plain` names; Markdown is given
`for_markdown` ones. None of them is then more than letters.
"""

import logging
import re
import sys
import unicodedata

_JOINERS = "\u200c\u200d"
"""Zero-width characters that Persian and Indic words, and emoji, are written with."""
# At the edge of a word an underscore or a star begins emphasis; between letters an
# underscore, and between blanks a star, is one.
_MARKDOWN = re.compile(r"[\\`\[|$~]|\*(?!\s)|(?<!\s)\*|_(?![^\W_])|(?<![^\W_])_")


def visible(text: str) -> str:
    r"""Writes out what does not show, or changes how other letters show.

    Control characters and with them the escapes of a terminal, Unicode's marks and
    overrides of the direction of writing, halves of surrogate pairs (which stand for
    the bytes of a file's name that are no UTF-8) and unassigned characters become
    "\x1b", "\u202e", "\udce9". Spaces of other widths become spaces; lines end where
    they ended.
    """
    return text if text.isprintable() else "".join(map(_written, text))


def _written(letter: str) -> str:
    if letter.isprintable() or letter == "\n" or letter in _JOINERS:
        return letter
    if unicodedata.category(letter) == "Zs":
        return " "
    return letter.encode("unicode_escape").decode()


def plain(name: object, most: int = 60) -> str:
    """Formats a name as one line of `visible` text of at most `most` characters."""
    text = visible(str(name)).replace("\n", "\\n")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def for_markdown(name: str) -> str:
    """Formats a name as one line that is no HTML, link, code, formula, cell or rule."""
    text = visible(name).replace("\n", " ")
    text = _MARKDOWN.sub(lambda found: f"\\{found.group()}", text)
    return text.replace("&", "&amp;").replace("<", "&lt;")


def tolerate_output() -> None:
    r"""Makes this process write letters that its terminal lacks as "\u4e2d".

    For programs: Python would otherwise end them at the first such letter.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_VisibleLines())


class _VisibleLines(logging.Formatter):
    """Formats a log's lines, which name files, as `visible` text."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record."""
        return visible(super().format(record))
