"""The account of CPU seconds that a run of the tests ends with."""

import os
import tomllib
from pathlib import Path

from tests.support import compiling
from tests.support.budget import BUDGET, report

ROWS = [
    ("default", "ops", "ops/test_a.py::test_one", 3.0, 2),
    ("default", "ops", "ops/test_a.py::test_two", 1.0, 1),
    ("slow", "ops", "ops/test_a.py::test_three", 12.0, 5),
]


def test_a_folder_over_its_budget_is_named():
    text = report(ROWS, {"default": {"ops": 3.5}, "slow": {"ops": 20}})
    assert " ".join(text.splitlines()[1].split()) == "default ops 2 4.0 3 25 % 4"
    assert "OVER: ops (default) took 4 of 4 s." in text
    assert "(slow)" not in text
    assert text.index("test_three") < text.index("test_one") < text.index("test_two")
    assert "OVER" not in report(ROWS, {})


def test_every_folder_has_a_budget():
    folders = {p.parent.name for p in Path(__file__).parent.glob("*/test_*.py")}
    assert folders - {"parity"} <= tomllib.loads(BUDGET.read_text())["default"].keys()


def test_a_cache_over_its_limit_loses_its_oldest_programs(tmp_path):
    for i in range(4):
        path = tmp_path / str(i)
        path.write_bytes(bytes(10))
        os.utime(path, (i, i))
    compiling.trim(tmp_path, max_bytes=40)
    assert len(list(tmp_path.iterdir())) == 4
    compiling.trim(tmp_path, max_bytes=39)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3"]
