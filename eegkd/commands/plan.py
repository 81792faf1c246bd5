"""`eegkd plan NAME`: parameters, operations, memory, cache, time; nothing runs."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from eegkd.commands.options import parse
from eegkd.commands.verbs import introduce, parse_verb, spell_out
from eegkd.config import override
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError, suggest
from eegkd.host.terminal import Terminal, bold
from eegkd.plan.account import DEVICE_COUNTS, make_plan, plan_model
from eegkd.plan.catalogue import NAMES, ModelPlan
from eegkd.plan.chips import get_chip
from eegkd.systems import System
from eegkd.systems.entry import names
from eegkd.systems.signal import signal_of

_MEMORY_NOTE = (
    "Memory is an analytic account of one device. Activations are what the forward "
    "pass keeps for the backward pass before the compiler fuses: an upper estimate."
)
_OPERATIONS_NOTE = (
    "Operations are counted in the traced program. What a compiler needs beside these "
    "bytes (copies, buffers of collectives, fragments) is not among them."
)
_EXACT = "a device, exact, by the shapes"
_ESTIMATE = "a device, an estimate, before the compiler fuses"
_TIME_NOTE = (
    "Times are analytic: operations, memory traffic (element-wise work taken as "
    "fused) and links at the chip's published peaks, the gradient's all-reduce not "
    "overlapped. No program reaches its peaks, and steps under a millisecond wait for "
    "their host."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSystem:
    """Account for a system by its shapes; nothing is compiled or run.

    Attributes:
        preset: Preset of the system's options.
        config: The config.json of a run, whose options are taken in place of a preset.
        devices: Devices that share a batch; 0 is --train.devices, and with --chip a
            table of 1 to 1,024.
        chip: Adds the least time of a step: A100, H100, H200, v5e, v5p or v6e.
        runner: Runner of the step; auto is --train.runner.
        fully_sharded: Cut parameters and optimiser over all devices (runner mesh).
        windows: Windows to size the cache for; 0 takes those of --store.
        json: Print JSON in place of tables.
    """

    preset: str = "paper"
    config: str = ""
    devices: int = 0
    chip: str = ""
    runner: Literal["auto", "single", "pmap", "shard_map", "mesh"] = "auto"
    fully_sharded: bool = False
    windows: int = 0
    json: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanModel(ModelPlan):
    """Account for a training step of a model by its shapes; nothing is run.

    Attributes:
        json: Print JSON in place of tables.
    """

    json: bool = False


def main(args: Sequence[str]) -> None:
    """Runs the verb, of a system or of a model."""
    name = args[0] if args else ""
    args = spell_out(args, "json", "fully_sharded")
    if name in NAMES:
        given = parse(PlanModel, args[1:], f"plan {name}")
        fields = (field.name for field in dataclasses.fields(ModelPlan))
        options = ModelPlan(**{field: getattr(given, field) for field in fields})
        _print(plan_model(name, options), given.json, show_model)
        return
    if name in ("-h", "--help"):
        introduce("plan", f", or a model: {', '.join(NAMES)}")
        args = [names()[0], *args]
    else:
        _check_name(name)
    entry, options, config = parse_verb(PlanSystem, args, "plan")
    plan = _plan_system(entry.make_system, options, config)
    _print(plan, options.json, show_system)


def _print(
    plan: Mapping[str, Any],
    as_json: bool,
    show: Callable[[Mapping[str, Any], Terminal], None],
) -> None:
    if as_json:
        sys.stdout.write(json.dumps(plan, indent=1) + "\n")
    else:
        show(plan, Terminal())


def _check_name(name: str) -> None:
    """Checks that a name is a system or a model."""
    known = f"{', '.join(names())}; or of the models {', '.join(NAMES)}"
    if not name or name.startswith("-"):
        raise InputError(
            "Name a system first, as in `eegkd plan distilclip_eeg --preset paper`, or "
            f"a model: choose {known}."
        )
    if name not in names():
        raise InputError(
            f"There is no system or model {name!r}: choose {known}."
            f"{suggest(name, (*names(), *NAMES))}"
        )


def _plan_system(
    make_system: Callable[[Any], System], options: PlanSystem, config: Any
) -> dict[str, Any]:
    chip = get_chip(options.chip) if options.chip else None
    if options.devices < 0 or options.windows < 0:
        raise InputError("--devices and --windows are 0 or more.")
    windows = options.windows
    if config.store:
        store = WindowStore.open(config.store, "size")
        config = dataclasses.replace(config, signal=signal_of(store))
        windows = windows or len(store)
    runner = config.train.runner if options.runner == "auto" else options.runner
    devices = options.devices or config.train.devices
    config = override(config, {"train.devices": devices, "train.runner": runner})
    table = chip is not None and not devices and runner != "single"
    return make_plan(
        make_system,
        config,
        chip=chip,
        device_counts=DEVICE_COUNTS if table else (),
        fully_sharded=options.fully_sharded,
        num_windows=windows,
    )


def show_system(plan: Mapping[str, Any], console: Terminal) -> None:
    """Prints the account of a system as tables."""
    show_costs(plan, console)
    if "chip" in plan:
        show_times(plan, console)


def show_costs(plan: Mapping[str, Any], console: Terminal) -> None:
    """Prints parameters, operations and memory as tables."""
    signal = plan["signal"]
    console.print(
        f"{plan['system']}: windows of {signal['n_chans']} channels, "
        f"{signal['n_times']} samples at {signal['rate']:g} Hz, "
        f"{len(signal['classes'])} classes; batches of {plan['batch_size']} on "
        f"{plan['devices']:,} device(s)."
    )
    if signal["student_channels"]:
        console.print(f"The student sees {' '.join(signal['student_channels'])}.")
    parts = Table(title="Parameters")
    for name in ("stage", "part"):
        parts.add_column(name)
    for name in ("each", "copies", "all"):
        parts.add_column(name, justify="right")
    for stage, costs in plan["stages"].items():
        for part in costs["parts"]:
            parts.add_row(stage, *_part_cells(part))
        groups = costs["groups"]
        if groups.keys() >= {"backbone", "head"}:
            for group, number in groups.items():
                parts.add_row(stage, bold(group), "", "", f"{number:,}")
        parts.add_row(stage, bold("EEG branch"), "", "", f"{costs['eeg_branch']:,}")
        parts.add_row(
            stage, bold("all"), "", "", f"{costs['parameters']:,}", end_section=True
        )
    console.print(parts)
    names = list(plan["stages"])
    table = Table(title="Costs of one device")
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
    table.add_section()
    sent = [_size(plan["stages"][name].get("collective_bytes")) for name in names]
    table.add_row("sent to other devices, a step", *sent)
    console.print(table)
    cache = plan["cache"]
    read = ", ".join(cache["reads"]) or "nothing"
    whole = ""
    if cache["windows"]:
        whole = f"; {_size(cache['bytes'])} for {cache['windows']:,} windows"
    console.print(
        f"Teacher cache: {cache['bytes_per_window']:,} bytes a window ({read}){whole}."
    )
    console.print(_MEMORY_NOTE)


def show_times(plan: Mapping[str, Any], console: Terminal) -> None:
    """Prints memory and least times by the number of devices."""
    chip = plan["chip"]
    for stage, rows in plan["roofline"].items():
        for mode in dict.fromkeys(row["earlier_stages"] for row in rows):
            given = "" if mode == "none" else f", earlier stages {mode}"
            table = Table(title=f"{chip['name']}: {stage}{given}")
            for name in (
                *("devices", "batch", "GiB", "fits", "sent\nMiB", "compute\nms"),
                *("memory\nms", "links\nms", "step\nms", "bound", "windows/s"),
            ):
                table.add_column(name, justify="right", no_wrap=True)
            for row in (row for row in rows if row["earlier_stages"] == mode):
                table.add_row(*_time_cells(row))
            console.print(table)
    console.print(
        f"{chip['name']}: {chip['half_flops'] / 1e12:,.0f} TFLOP/s in bfloat16, "
        f"{chip['single_flops'] / 1e12:,.0f} in float32 at JAX's default precision, "
        f"{chip['memory_bytes'] / 1e9:,.0f} GB at {chip['memory_rate'] / 1e9:,.0f} "
        f"GB/s; links {chip['link_rate'] / 1e9:,.0f} GB/s among {chip['domain']:,} "
        f"chips, {chip['network_rate'] / 1e9:,.1f} GB/s beyond. {chip['source']}."
    )
    asked = plan["batch_size"]
    grown = [
        row["devices"]
        for stage, rows in plan["roofline"].items()
        for row in rows
        if row["batch_size"] != plan["stages"][stage].get("batch_size", asked)
    ]
    if grown:
        console.print(
            f"A batch of {plan['batch_size']} cannot be cut over {min(grown):,} "
            "devices or more: there it is the next multiple (--train.batch_size)."
        )
    if not all(row["fits"] for rows in plan["roofline"].values() for row in rows):
        console.print(
            bold("Rows marked NO do not fit into the chip's memory:") + " more "
            "devices, --train.accumulate, or --fully_sharded."
        )
    console.print(_TIME_NOTE)


def show_model(plan: Mapping[str, Any], console: Terminal) -> None:
    """Prints the account of a model as tables."""
    options = plan["options"]
    rank = options["lora"]["rank"]
    how = f"LoRA of rank {rank}" if rank else "all that can be trained"
    cut = " and ".join(plan["cut_along"]) or "nothing: each device has all weights"
    of_images = ""
    if plan["visual_tokens"]:
        of_images = f", {plan['visual_tokens']:,} of them an image's"
    size = f"{options['batch_size']:,} examples"
    if "kv_cache" in plan:
        size += f" of {options['length']:,} positions{of_images}"
    console.print(
        f"{plan['model']}, {how}: {size}; {options['devices']:,} device(s), cut along "
        f"{cut}; {options['dtype']}, remat {options['remat']}."
    )
    console.print(_model_parts(plan))
    console.print(_model_costs(plan))
    for path, reason in plan["cut_by_shape"].items():
        console.print(f"{path}: {reason}; cut along its largest axis that divides.")
    console.print(_OPERATIONS_NOTE)


def _model_parts(plan: Mapping[str, Any]) -> Table:
    table = Table(title="Parameters")
    table.add_column("part")
    for name in ("each", "copies", "all"):
        table.add_column(name, justify="right")
    for part in plan["parts"]:
        table.add_row(*_part_cells(part))
    table.add_section()
    if len(plan["groups"]) > 1:
        for group, number in plan["groups"].items():
            table.add_row(bold(group), "", "", f"{number:,}")
    table.add_row(bold("trained"), "", "", f"{plan['trained']:,}")
    table.add_row(bold("all"), "", "", f"{plan['parameters']:,}")
    return table


def _model_costs(plan: Mapping[str, Any]) -> Table:
    table = Table(title="Costs")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("")
    for name, value in plan["flops"].items():
        said = "decoding a token each" if name == "decode_token" else name
        table.add_row(
            said.replace("_", " "), f"{value / 1e12:,.4g} TFLOP", "the whole batch"
        )
    table.add_section()
    for name, value in plan["memory"].items():
        table.add_row(name, _gib(value), _EXACT)
    for name, value in plan["memory_estimate"].items():
        table.add_row(name.replace("_", " "), _gib(value), _ESTIMATE)
    table.add_row(bold("a step"), _gib(plan["memory_bytes"]), "a device")
    if "kv_cache" in plan:
        table.add_section()
        cache = plan["kv_cache"]
        table.add_row("keys and values", _gib(cache["bytes"]), "a device, to generate")
    if "fits" in plan:
        table.add_section()
        chip = plan["chip"]["name"]
        fits = "yes" if plan["fits"] else bold("NO")
        table.add_row(f"fits {chip}", fits, "")
        least = f"{1000 * plan['least_step_s']:,.1f} ms"
        table.add_row("a step at least", least, "operations at its peak, no links")
    return table


def _part_cells(part: Mapping[str, Any]) -> tuple[str, str, str, str]:
    frozen = "" if part["trained"] else " (frozen)"
    each = part["parameters"] // part["copies"]
    cells = (f"{each:,}", str(part["copies"]), f"{part['parameters']:,}")
    return part["name"] + frozen, *cells


def _time_cells(row: Mapping[str, Any]) -> tuple[str | Text, ...]:
    sides = ("compute_s", "memory_s", "interconnect_s", "step_s")
    speed = row["windows_per_s"]
    return (
        f"{row['devices']:,}",
        f"{row['batch_size']:,}",
        f"{row['memory_bytes'] / 2**30:,.2f}",
        "yes" if row["fits"] else bold("NO"),
        f"{row['collective_bytes'] / 2**20:,.1f}",
        *(f"{1000 * row[side]:,.3f}" for side in sides),
        "links" if row["bound"] == "interconnect" else row["bound"],
        f"{speed:,.0f}" if speed < 1e6 else f"{speed / 1e6:,.2f} M",
    )


def _flops(value: int | None) -> str:
    if value is None:
        return "-"
    giga = value / 1e9
    return f"{giga:,.3g} GFLOP" if giga < 1000 else f"{giga / 1000:,.3g} TFLOP"


def _size(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:,.1f} MiB"


def _gib(value: int) -> str:
    return f"{value / 2**30:,.3f} GiB"
