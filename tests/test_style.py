"""What no linter checks: file sizes, machine paths, notebooks, tested versions."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES, MAX_FUNCTION, MAX_PARAMETERS = 400, 80, 10
LARGE: dict[tuple[str, str], str] = {}
"""Functions over the limits, by file and name, each with the reason it stays."""
_MACHINE_PATH = re.compile(r"/(?:home|root|Users|work|mnt)/\w|\b[A-Z]:\\Users")


def files(*suffixes: str) -> list[Path]:
    places = ("eegkd", "experiments", "tests", "docs", "notebooks", ".ci")
    found = [p for place in places for p in (ROOT / place).rglob("*") if p.is_file()]
    found += [p for p in ROOT.iterdir() if p.is_file()]
    return [p for p in found if p.suffix in suffixes]


def test_no_file_is_too_long():
    sizes = {p: len(p.read_text().splitlines()) for p in files(".py")}
    assert len(sizes) > 50, "the sources were not found"
    long = [f"{p.relative_to(ROOT)}: {n}" for p, n in sizes.items() if n > MAX_LINES]
    assert not long, f"Split by {MAX_LINES} lines: {', '.join(long)}."


def large_functions(source: str) -> list[str]:
    """Describes functions of more lines or parameters than are read at a glance."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        given = node.args
        num = len([*given.posonlyargs, *given.args, *given.kwonlyargs])
        num -= bool(given.args) and given.args[0].arg in ("self", "cls")
        if lines > MAX_FUNCTION or num > MAX_PARAMETERS:
            found.append(f"{node.name}: {lines} lines, {num} parameters")
    return found


def test_no_function_is_too_large():
    found = [
        f"{path.relative_to(ROOT)}: {said}"
        for path in files(".py")
        for said in large_functions(path.read_text())
        if (str(path.relative_to(ROOT)), said.partition(":")[0]) not in LARGE
    ]
    most = f"{MAX_FUNCTION} lines or {MAX_PARAMETERS} parameters"
    assert not found, f"Over {most}: {'; '.join(found)}."


def test_exceptions_still_need_to_be_ones():
    for place, reason in LARGE.items():
        path = ROOT / place[0]
        said = large_functions(path.read_text()) if path.is_file() else []
        names = [text.partition(":")[0] for text in said]
        assert place[1] in names, f"Take {place} out of LARGE: it is small, or gone."
        assert reason, f"Say why {place} stays."


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n" + "    x = 1\n" * 80,
        f"def f({', '.join(f'a{i}' for i in range(11))}): pass",
        f"def f(*, {', '.join(f'a{i}' for i in range(11))}): pass",
    ],
)
def test_a_planted_large_function_is_found(source):
    assert large_functions(source)


def test_a_function_of_the_largest_size_passes():
    names = ", ".join(f"a{i}" for i in range(10))
    assert not large_functions(f"def f(self, {names}):\n" + "    x = 1\n" * 79)


def test_no_file_names_a_machine_path():
    kinds = (".py", ".md", ".toml", ".txt", ".yaml", ".ipynb", "")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files(*kinds)
        if (match := _MACHINE_PATH.search(path.read_text(errors="replace")))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("text", ["see /home" + "/anna/data", "C:" + r"\Users\anna"])
def test_a_planted_machine_path_is_found(text):
    assert _MACHINE_PATH.search(text)


def imported_tests(source: str) -> list[str]:
    """Lists the test modules that a file imports, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [n for n in names if re.search(r"(^|\.)tests\.(\w+\.)*test_", n)]


def test_no_file_imports_a_test_module():
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files(".py")
        for name in imported_tests(path.read_text())
    ]
    assert not found, f"Move it to tests/support: {', '.join(found)}."
    assert imported_tests("def f():\n    from tests.ops import test_masks")
    assert imported_tests("from tests.ops.test_masks import causal")
    assert not imported_tests("from tests.support.toy import make_system")


def test_notebooks_are_committed_without_outputs():
    notebooks = files(".ipynb")
    assert notebooks
    for path in notebooks:
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs"), f"{path.name} holds outputs"
            assert cell.get("execution_count") is None, f"{path.name} was run"


def test_constraints_pin_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    name = re.compile(r"[A-Za-z0-9_.-]+")
    wanted = {name.match(line).group() for group in groups for line in group}
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert not wanted - {"eegkd"} - pinned
