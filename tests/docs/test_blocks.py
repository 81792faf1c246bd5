"""Every block of README.md and docs/ does what it says, as it is printed."""

import dataclasses
import importlib
import os
import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest

from eegkd.cli import main
from eegkd.commands.bench import Bench
from eegkd.commands.evaluate import Evaluate
from eegkd.commands.export import Export
from eegkd.commands.plan import PlanModel, PlanSystem
from eegkd.commands.predict import Predict
from eegkd.commands.prepare import Prepare
from eegkd.commands.quickstart import Quickstart
from eegkd.config import run_config
from eegkd.systems.entry import find, names
from tests.docs.world import provide
from tests.support.documents import (
    BLOCKS,
    PAGES,
    SHOWN,
    appended,
    links,
    mentioned,
    read_rules,
    rule_of,
    units,
    words,
)
from tests.support.presets import TINY
from tests.support.processes import ROOT

RULES = read_rules()
FOUND = [
    unit
    for block in BLOCKS
    if block.language in ("bash", "python")
    for unit in units(block)
]
# What two pages print is run once.
RUN = [
    unit for i, unit in enumerate(FOUND) if unit.text not in {u.text for u in FOUND[:i]}
]
OTHER_OPTIONS = {
    *("config", "coordinator", "devices", "help", "preset", "process_id", "processes"),
    *("resume", "runner", "table", "out"),
    "no-deps",
}
"""Options that no dataclass declares: those that choose one, and another program's."""

IN_PLACE = "plan|prepare"
"""Verbs that leave nothing behind in a process that runs them."""


def marks(rule):
    if rule.not_run:
        return [pytest.mark.skip(reason=rule.not_run)]
    return [getattr(pytest.mark, rule.when)] if rule.when else []


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder in which a reader works through the pages."""
    folder = tmp_path_factory.mktemp("reader")
    for block in BLOCKS:
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
    return folder


@pytest.mark.parametrize(
    "unit",
    [pytest.param(u, marks=marks(rule_of(u, RULES)), id=u.name) for u in RUN],
)
def test_a_block_runs_as_printed(unit, world, monkeypatch):
    monkeypatch.chdir(world)
    for name, value in rule_of(unit, RULES).preset.items():
        value = tuple(value) if isinstance(value, list) else value
        for entry in map(find, names()):
            monkeypatch.setitem(entry.presets["small"], name, value)
    provide(world, unit.text, run)
    run(unit)


def run(unit):
    """Runs a block here: programs, and cheap commands, in this process."""
    rule = rule_of(unit, RULES)
    if unit.language == "python":
        program = Path(f"block{unit.line}.py")
        program.write_text(unit.text)
        runpy.run_path(str(program), run_name="__main__")
    elif not rule.when and re.match(rf"eegkd ({IN_PLACE}) ", unit.text):
        assert main(words(unit.text)[1:]) == 0
    else:
        # A reader is in the clone, where experiments/ lies.
        paths = (str(ROOT), ".", os.environ.get("PYTHONPATH", ""))
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", appended(unit.text, rule.append)],
            check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.DEVNULL,
        )


def test_every_block_is_run_or_is_a_file_or_is_only_read():
    known = {"bash", "python", "toml", *SHOWN}
    odd = [b.name for b in BLOCKS if b.language not in known and not b.file]
    assert not odd, f"Say in the fence what these are: {', '.join(odd)}."


def test_every_rule_is_needed():
    used = {rule_of(unit, RULES).text for unit in RUN}
    assert {rule.text for rule in RULES} <= used
    assert all(rule.not_run or rule.when or rule.append for rule in RULES)


def test_files_of_the_same_name_are_the_same():
    files = {}
    for block in BLOCKS:
        if block.file:
            assert files.setdefault(block.file, block.text) == block.text, block.name
    assert "recordings/labels.csv" in files


def test_the_readme_is_short_and_its_installations_are_those_of_ci():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 300
    script = (ROOT / ".ci" / "run").read_text()
    for command in ("eegkd quickstart", "pytest"):
        assert any(x.startswith("pip install") and x.endswith(command) for x in lines)
        assert f"readme_command {command}" in script.replace('"', "")


def test_the_loss_of_the_readme_makes_a_system(world):
    (block,) = [b for b in BLOCKS if (b.page, b.language) == ("README.md", "python")]
    made: dict = {}
    exec(block.text, made)
    student = made["make_system"](TINY).stages[-1]
    assert {"cosine", "l2"} <= {term.name for term in student.terms}


def test_every_entry_point_that_is_printed_is_looked_for():
    """Each toml block names a group that the library reads."""
    groups = {
        importlib.import_module(module).GROUP
        for module in ("eegkd.data.corpora", "eegkd.systems.entry")
    }
    blocks = [block for block in BLOCKS if block.language == "toml"]
    found = set()
    for block in blocks:
        found |= tomllib.loads(block.text)["project"]["entry-points"].keys()
    assert found == groups


def option_names(cls, prefix=""):
    """Lists the dotted names of the options that a dataclass declares."""
    found = set()
    for field in dataclasses.fields(cls):
        name = prefix + field.name
        found.add(name)
        if dataclasses.is_dataclass(field.default):
            found |= option_names(type(field.default), f"{name}.")
    return found


def test_every_option_that_is_named_exists():
    declared = [run_config(find(name).config) for name in names()]
    declared += [Bench, Evaluate, Export, PlanModel, PlanSystem, Predict, Prepare]
    known = OTHER_OPTIONS.union(*map(option_names, [*declared, Quickstart]))
    unknown = [
        f"{page.name}: --{name}"
        for page in PAGES
        for name in mentioned(page.read_text()) - known
    ]
    assert not unknown, "\n".join(unknown)
    assert mentioned("as `--data.unit uV`, --x.") == {"data.unit", "x"}


def test_every_link_leads_somewhere():
    dead = [
        f"{page.name}: {p}" for page in PAGES for p in links(page) if not p.exists()
    ]
    assert not dead, "\n".join(dead)
    linked = {p.resolve() for p in links(ROOT / "README.md")}
    assert {page.resolve() for page in PAGES[1:]} <= linked
