"""`eegkd plan SYSTEM`: parameters, operations, memory and cache, without running."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from eegkd.commands.options import parse_run
from eegkd.data.store import WindowStore
from eegkd.errors import InputError
from eegkd.pipeline.distill import signal_of
from eegkd.pipeline.plan import make_plan
from eegkd.pipeline.registry import SYSTEMS

_MEMORY_NOTE = (
    "Memory is an analytic account of one device. Activations are what the forward "
    "pass keeps for the backward pass before the compiler fuses: an upper estimate."
)


def main(args: Sequence[str]) -> None:
    """Runs the verb."""
    rest = [arg for arg in args if arg != "--json"]
    if rest and rest[0] in ("-h", "--help"):
        rest = ["distilclip_eeg", rest[0]]
    if not rest or rest[0].startswith("-"):
        raise InputError(
            "Name a system first, as in `eegkd plan distilclip_eeg --preset paper`: "
            f"choose {', '.join(SYSTEMS)}."
        )
    entry, config = parse_run(rest[0], rest[1:], f"plan {rest[0]}", preset="paper")
    if config.store:
        signal = signal_of(WindowStore.open(config.store))
        config = dataclasses.replace(config, signal=signal)
    plan = make_plan(entry.make_system, config)
    if "--json" in args:
        sys.stdout.write(json.dumps(plan, indent=1) + "\n")
        return
    _show(plan, Console())


def _show(plan: Mapping[str, Any], console: Console) -> None:
    signal = plan["signal"]
    console.print(
        f"{plan['system']}: windows of {signal['n_chans']} channels, "
        f"{signal['n_times']} samples at {signal['rate']:g} Hz, "
        f"{len(signal['classes'])} classes; batches of {plan['batch_size']} on "
        f"{plan['devices']} device(s)."
    )
    parts = Table(title="Parameters")
    for name in ("stage", "part"):
        parts.add_column(name)
    for name in ("each", "copies", "all"):
        parts.add_column(name, justify="right")
    for stage, costs in plan["stages"].items():
        for part in costs["parts"]:
            frozen = "" if part["trained"] else " (frozen)"
            each = part["parameters"] // part["copies"]
            cells = (f"{each:,}", str(part["copies"]), f"{part['parameters']:,}")
            parts.add_row(stage, part["name"] + frozen, *cells)
        parts.add_row(stage, "[bold]EEG branch", "", "", f"{costs['eeg_branch']:,}")
        parts.add_row(
            stage, "[bold]all", "", "", f"{costs['parameters']:,}", end_section=True
        )
    console.print(parts)
    names = list(plan["stages"])
    table = Table(title="Costs")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    rows = (
        ("forward, a window", "flops_window"),
        ("training step, earlier stages cached", "flops_step"),
        ("training step, earlier stages online", "flops_step_online"),
    )
    for label, key in rows:
        cells = [_flops(plan["stages"][name].get(key)) for name in names]
        table.add_row(label, *cells)
    table.add_section()
    for key in plan["stages"][names[-1]]["memory"]:
        memory = [plan["stages"][name].get("memory", {}) for name in names]
        table.add_row(key.replace("_", " "), *(_size(m.get(key)) for m in memory))
    console.print(table)
    cache = plan["cache"]
    read = ", ".join(cache["reads"]) or "nothing"
    console.print(
        f"Teacher cache: {cache['bytes_per_window']:,} bytes a window ({read})."
    )
    console.print(_MEMORY_NOTE)


def _flops(value: int | None) -> str:
    if value is None:
        return "-"
    giga = value / 1e9
    return f"{giga:,.3g} GFLOP" if giga < 1000 else f"{giga / 1000:,.3g} TFLOP"


def _size(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:,.1f} MiB"
