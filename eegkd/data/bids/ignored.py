"""`.bidsignore`: what a data set says is none of its files."""

import re
from collections.abc import Callable
from pathlib import Path

from eegkd.data.bids.tables import read_text
from eegkd.errors import InputError


def read_ignored(root: Path) -> Callable[[Path], bool]:
    """Returns a check of whether `.bidsignore` names a path below the root.

    Its lines are patterns as in `.gitignore`: `*` and `?` stop at a slash, `**` does
    not, a slash before the last character binds a pattern to the root, `!` takes a path
    back, and a folder that is named takes all that it holds with it.

    Raises:
        InputError: If the file cannot be read, or a line is no pattern.
    """
    file = root / ".bidsignore"
    if not (file.exists() or file.is_symlink()):
        return lambda path: False
    rules = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        try:
            rule = re.compile(_expression(pattern.removeprefix("!")))
        except re.error as error:
            raise InputError(
                f"{file}, line {number}: {pattern!r} is no pattern ({error}). Correct "
                "or remove the line."
            ) from error
        rules.append((rule, not pattern.startswith("!")))

    def is_ignored(path: Path) -> bool:
        name = path.relative_to(root).as_posix()
        return next(
            (leaves for rule, leaves in rules[::-1] if rule.fullmatch(name)), False
        )

    return is_ignored


def _expression(pattern: str) -> str:
    body = pattern.strip("/")
    anchored = "/" in pattern.rstrip("/")
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", body)
    kept = [
        signs.get(part, part.replace("[!", "[^") if index % 2 else re.escape(part))
        for index, part in enumerate(parts)
    ]
    return ("" if anchored else "(?:.*/)?") + "".join(kept) + "(?:/.*)?"
