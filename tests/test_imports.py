"""Imports go one way, islands load no jax, and the library neither prints nor asserts.

The rules are read from the syntax tree, so that an import inside a function counts too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "eegkd"

FLOORS = (
    ("errors", "typing"),
    ("host",),
    ("ops", "cache", "convert"),
    ("data", "losses", "models"),
    ("systems",),
    ("train", "evaluate"),
    ("config",),
    ("pipeline", "plan"),
    ("bench", "deploy"),
    ("commands",),
    ("cli",),
)
"""A room may import those of lower floors, and none of its own floor."""

_NO_JAX = ("errors", "host", "cache", "convert", "data", "cli")
# What loads jax is not for the rooms that must not.
_LOADS_JAX = ("typing", "ops")


def allowed(room: str) -> set[str]:
    """Lists the rooms that one may import."""
    floor = next(i for i, rooms in enumerate(FLOORS) if room in rooms)
    below = {name for rooms in FLOORS[:floor] for name in rooms}
    if room in _NO_JAX and room != "cli":
        below -= {*_LOADS_JAX, "losses", "models"}
    return below | ({"__version__"} if room == "cli" else set())


ALLOWED: Mapping[str, set[str]] = {
    # For type checkers alone: `test_no_jax_is_loaded` sees that nothing is loaded.
    "__init__": {room for rooms in FLOORS for room in rooms},
    "__main__": {"cli"},
} | {room: allowed(room) for rooms in FLOORS for room in rooms}

# Parts that know a System by its type alone, never one system.
_BY_TYPE = ("train", "evaluate")
# Where parameters and the files of others meet.
_JOINS = ("models/published/", "models/saving.py")
# Sets jax's options before it starts, for programs that ask for it.
_CONFIGURES_JAX = "host/process.py"
_JAX = ("jax", "flax", "optax", "orbax", "ott")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lists every imported name with its line; "" as the module of a relative one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "" if node.level else node.module or ""
            yield from ((node.lineno, f"{module}.{a.name}") for a in node.names)


def broken_import(file: str, name: str) -> str | None:
    """Says which rule an import of `name` breaks in a file (relative to eegkd/)."""
    part = file.split("/")[0].removesuffix(".py")
    if part not in ALLOWED:
        return f"{part} has no place in the import order: give it one in this test"
    root, *rest = name.split(".")
    if not root:
        return "relative import"
    if root == "eegkd":
        target = rest[0] if rest else "__init__"
        if target != part and target not in ALLOWED[part]:
            return f"{part} may not import {target}"
        inner = PACKAGE / "systems" / (rest[1] if rest[1:] else ".")
        below = rest[1:] and (inner.is_dir() or inner.with_suffix(".py").is_file())
        if part in _BY_TYPE and target == "systems" and below:
            return f"{part} may know a System by its type alone"
        if (target, part) == ("convert", "models") and not file.startswith(_JOINS):
            return "of models, only published/ and saving.py may import convert"
        return None
    if part in _NO_JAX and root in _JAX and file != _CONFIGURES_JAX:
        return f"{part} is a NumPy island: no {root}"
    if root == "grain" and file != "data/batches/loader.py":
        return "only data/batches/loader.py may import grain"
    if name.startswith("flax.linen") and part != "models":
        return "only models may import flax.linen"
    if root in ("chex", "pytest", "hypothesis", "beartype"):
        return f"{root} is for tests"
    return None


def problems(file: str, source: str) -> list[str]:
    """Lists what is wrong with one file, as "file:line what"."""
    tree = ast.parse(source)
    found = [
        f"{file}:{line} {broken}"
        for line, name in imported(tree)
        if (broken := broken_import(file, name))
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            found.append(f"{file}:{node.lineno} assert in the library")
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and called.id == "print":
            found.append(f"{file}:{node.lineno} print in the library")
    return found


def test_the_package_keeps_its_import_order():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 50, "the package was not found"
    found = [
        problem
        for path in files
        for problem in problems(path.relative_to(PACKAGE).as_posix(), path.read_text())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("losses/logits.py", "from eegkd.models import Conformer", "import models"),
        ("models/bert.py", "import eegkd.losses", "import losses"),
        ("ops/flops.py", "def f():\n    from eegkd import train", "import train"),
        ("models/bert.py", "from eegkd.convert import bert", "only published/"),
        ("evaluate/events.py", "from eegkd.train import train", "import train"),
        ("data/windows/store.py", "from eegkd.typing import Array", "import typing"),
        ("train/step.py", "from eegkd.systems import small_net", "by its type"),
        ("train/step.py", "from eegkd.systems import dlink", "by its type"),
        ("train/step.py", "from eegkd.systems.small_net import x", "by its type"),
        ("train/loop.py", "import eegkd.pipeline.run", "import pipeline"),
        ("pipeline/run.py", "from eegkd.commands import options", "commands"),
        ("data/windows/store.py", "import jax.numpy as jnp", "NumPy island"),
        ("convert/bert.py", "from flax import linen", "NumPy island"),
        ("data/windows/store.py", "import grain", "only data/batches/loader.py"),
        ("losses/logits.py", "from flax import linen as nn", "only models"),
        ("losses/logits.py", "import flax.linen as nn", "only models"),
        ("losses/logits.py", "from . import compose", "relative"),
        ("errors.py", "from eegkd.typing import Array", "import typing"),
        ("new_part/a.py", "import eegkd.errors", "no place"),
        ("ops/flops.py", "import chex", "for tests"),
        ("ops/flops.py", "assert 1", "assert"),
        ("ops/flops.py", "print(1)", "print"),
    ],
)
def test_a_planted_fault_is_found(file, source, message):
    (found,) = problems(file, source)
    assert message in found


def test_what_is_allowed_passes():
    assert not problems("train/step.py", "from eegkd.systems import System")
    assert not problems("models/published/a.py", "from eegkd.convert import bert")
    assert not problems("models/bert.py", "from flax import linen as nn")
    assert not problems("data/batches/loader.py", "def f():\n    import grain")


@pytest.mark.parametrize(
    "code",
    [
        "import eegkd",
        "from eegkd.cli import main; main(['--help'])",
        "import eegkd.data.windows.prepare, eegkd.cache.fill, eegkd.convert.bert",
    ],
    ids=["package", "help", "islands"],
)
def test_no_jax_is_loaded(code):
    code += "\nimport sys; sys.exit('jax was loaded' if 'jax' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
