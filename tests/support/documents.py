"""Blocks of code in the README and in docs/, and how tests run them.

`tests/docs/blocks.toml` is the one place that says which of them are dear and which
cannot be run. A bash block is a command per line, in a shell of its own where one line
sets a variable for another; a block in Python is a program. A block whose fence names
a file after the language is that file.
"""

import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
RULES = ROOT / "tests" / "docs" / "blocks.toml"
SHOWN = ("text",)
"""Languages of blocks that are read and not run."""

_FENCE = re.compile(r"^```(\w*) *(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block, or one command of it."""

    page: str
    line: int
    language: str
    file: str
    text: str

    @property
    def name(self):
        return f"{self.page}:{self.line}"


class Rule(NamedTuple):
    """How a command or a program is run that is not run as printed at once."""

    text: str
    when: str = ""
    append: tuple | str = ()
    preset: dict = {}
    not_run: str = ""


def find_blocks(page):
    """Lists the fenced blocks of a page, with the line that each begins in."""
    text = page.read_text()
    where = str(page.relative_to(ROOT))
    return [
        Block(where, text.count("\n", 0, m.start(3)) + 1, m[1], m[2], m[3])
        for m in _FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in find_blocks(page)]


def units(block):
    """Lists what of a block is run by itself."""
    if block.language != "bash" or re.search(r"^\w+=", block.text, re.MULTILINE):
        return [block]
    found, first = [], block.line
    for command in re.split(r"(?<!\\)\n", block.text):
        if command.strip():
            found.append(block._replace(line=first, text=command))
        first += command.count("\n") + 1
    return found


def read_rules():
    read = tomllib.loads(RULES.read_text())
    rules = [Rule(**rule) for rule in read["rule"]]
    named = read["sets"]
    return [
        rule._replace(append=" ".join(named.get(x, x) for x in rule.append))
        for rule in rules
    ]


def rule_of(unit, rules):
    """Returns the first rule that fits a unit."""
    return next((rule for rule in rules if rule.text in unit.text), Rule(""))


def appended(command, options):
    """Returns a command with further options, before its comment."""
    lines = []
    for line in re.split(r"(?<!\\)\n", command.rstrip("\n")):
        code, _, comment = line.partition("  #")
        takes = options and re.match(r"eegkd |python -m experiments", code)
        lines.append(f"{code} {options}" if takes else code)
    return "\n".join(lines)


def words(command):
    """Splits a command as a shell does."""
    return shlex.split(command.replace("\\\n", " "), comments=True)


def mentioned(text):
    """Lists the options that a text names."""
    found = re.findall(r"(?<![\w-])--([a-z][\w.-]*)", text)
    return {name.rstrip(".") for name in found}


def links(page: Path):
    """Lists the relative links of a page."""
    found = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    return [page.parent / target for target in found]
