"""What tests cost, by folder, beside what tests/budget.toml allows; it fails nothing.

A test is charged the CPU seconds of its process and of the children it waited for: wall
time on a busy machine says little. Programs that came from the cache of compiled ones
do not count as compiled.
"""

import os
import resource
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import pytest

BUDGET = Path(__file__).parents[1] / "budget.toml"
KINDS = ("nightly", "optimised", "slow", "parity")
"""Marks by which a test is charged to another budget than the default suite's."""

_DEAREST = 15
_COMPILED = "/jax/core/compile/backend_compile_duration"
_FROM_CACHE = "/jax/compilation_cache/cache_hits"

Row = tuple[str, str, str, float, int]
"""Kind, folder, name, CPU seconds and programs compiled of one test."""


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and of children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def report(rows: Iterable[Row], budgets: Mapping[str, Mapping[str, float]]) -> str:
    """Lays out a line for each folder and kind, and for each of the dearest tests."""
    rows = list(rows)
    total = sum(row[3] for row in rows) or 1.0
    head = ("kind", "folder", "tests", "cpu", "compiles", "share", "budget")
    line = "{:<10} {:<10} {:>6} {:>8} {:>9} {:>6} {:>7}"
    lines = [line.format(*head)]
    over = []
    for kind, folder in sorted({row[:2] for row in rows}):
        own = [row for row in rows if row[:2] == (kind, folder)]
        cpu, compiles = sum(row[3] for row in own), sum(row[4] for row in own)
        budget = budgets.get(kind, {}).get(folder)
        told = ("-" if budget is None else f"{budget:.0f}",)
        sizes = (len(own), f"{cpu:.1f}", compiles, f"{100 * cpu / total:.0f} %")
        lines.append(line.format(kind, folder, *sizes, *told))
        if budget is not None and cpu > budget:
            over.append(f"OVER: {folder} ({kind}) took {cpu:.0f} of {budget:.0f} s.")
    count = sum(row[4] for row in rows)
    lines.append(line.format("sum", "", len(rows), f"{total:.1f}", count, "", ""))
    lines += ["", "dearest tests, CPU seconds and programs compiled:"]
    for _, _, name, cpu, compiles in sorted(rows, key=lambda r: -r[3])[:_DEAREST]:
        lines.append(f"{cpu:8.1f} {compiles:5d}  {name}")
    return "\n".join([*lines, *(["", *over] if over else [])])


class Budget:
    """Measures each test, and prints the sums of all processes at the end."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.rows: list[Row] = []
        self.compiled = 0
        jax.monitoring.register_event_duration_secs_listener(
            lambda name, _, **__: self.count(name)
        )
        jax.monitoring.register_event_listener(lambda name, **_: self.count(name))

    def count(self, name: str) -> None:
        """Counts a program that was asked for, less those that the cache had."""
        self.compiled += (name == _COMPILED) - (name == _FROM_CACHE)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        """Measures a test with its fixtures."""
        cpu, compiled = cpu_seconds(), self.compiled
        result = yield
        parts = item.nodeid.partition("::")[0].split("/")
        folder = parts[1] if parts[2:] else "(top)"
        kind = next((k for k in KINDS if item.get_closest_marker(k)), "default")
        cost = cpu_seconds() - cpu, self.compiled - compiled
        self.rows.append((kind, folder, item.nodeid.removeprefix("tests/"), *cost))
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        """Takes over what one of xdist's workers has measured."""
        rows = getattr(node, "workeroutput", {}).get("budget", [])
        self.rows += [tuple(row) for row in rows]

    def pytest_sessionfinish(self):
        """Adds the start (imports and collection), and hands a worker's rows over."""
        start = cpu_seconds() - sum(row[3] for row in self.rows)
        if hasattr(self.config, "workeroutput"):
            name = "start and collection of a process"
            self.rows.append(("default", "(start)", name, start, 0))
            self.config.workeroutput["budget"] = self.rows

    def pytest_terminal_summary(self, terminalreporter):
        """Prints the table, also to the file that EEGKD_BUDGET names."""
        if not self.rows or self.config.option.collectonly:
            return
        text = report(self.rows, tomllib.loads(BUDGET.read_text()))
        terminalreporter.write_sep("=", "budget")
        terminalreporter.write_line(text)
        if path := os.environ.get("EEGKD_BUDGET"):
            with open(path, "a") as file:
                command = " ".join(["pytest", *self.config.invocation_params.args])
                file.write(f"{command}\n{text}\n\n")
