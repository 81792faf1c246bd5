"""`eegkd bench SYSTEM`: how long a training step takes on this machine, and why."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from eegkd.bench.bench import run_bench
from eegkd.bench.nested import Choice
from eegkd.bench.setup import draw_store
from eegkd.commands.verbs import parse_verb, spell_out
from eegkd.config import override
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.host.process import force_cpu_devices, keep_freed_memory
from eegkd.host.terminal import Terminal, bold
from eegkd.systems.signal import signal_of
from eegkd.train.sharding import pick_devices

_DTYPES = ("float32", "bfloat16")
_MAX_REST = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure a training step: windows per second, and where the time goes.

    Windows are noise of the preset's shape, or those of --store. Weights are untrained.

    Attributes:
        preset: Preset of the system's options.
        config: The config.json of a run, whose options are taken in place of a preset.
        stage: Name of the stage.
        teacher: For the student: read the teacher's outputs, or compute them in the
            step.
        runner: How devices share the step; auto is one device, or shard_map.
        devices: Number of devices; 0 is all. On a CPU they share the same cores.
        fully_sharded: Cut parameters and optimiser over all devices (runner mesh).
        batch: Windows per step; 0 is --train.batch_size.
        dtype: Dtype of activations; auto leaves the preset's.
        repeats: Measurements, of which the median is printed.
        json: Write the account to this file.
    """

    preset: str = "small"
    config: str = ""
    stage: str = "student"
    teacher: Literal["cached", "online"] = "cached"
    runner: Literal["auto", "single", "pmap", "shard_map", "mesh"] = "auto"
    devices: int = 0
    fully_sharded: bool = False
    batch: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    repeats: int = 7
    json: str = ""


def main(args: Sequence[str]) -> None:
    """Runs the verb."""
    entry, options, config = parse_verb(
        Bench, spell_out(args, "fully_sharded"), "bench"
    )
    if options.devices < 0 or options.batch < 0:
        raise InputError("--devices and --batch are 0 or more.")
    if options.json and not Path(options.json).absolute().parent.is_dir():
        raise InputError(f"--json {options.json}: there is no such folder.")
    # Compiled afresh: the time to compile is that of a first run.
    keep_freed_memory()
    force_cpu_devices(options.devices)
    size = options.batch or config.train.batch_size
    config = with_dtype(override(config, {"train.batch_size": size}), options.dtype)
    store = WindowStore.open(config.store) if config.store else None
    if store is None:
        store = draw_store(config.signal, 4 * size)
    config = dataclasses.replace(config, signal=signal_of(store))
    system = entry.make_system(config)
    names = [stage.name for stage in system.stages]
    if options.stage not in names:
        raise InputError(f"--stage {options.stage}: choose {', '.join(names)}.")
    devices = pick_devices(options.devices or int(options.runner == "single"))
    choice = Choice(_runner(options, len(devices)), devices, options.fully_sharded)
    console = Terminal()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(f"{options.stage}: compiling the step", total=None)

        def progress(done: int, total: int) -> None:
            text = f"{options.stage}: measuring"
            bar.update(task, completed=done, total=total, description=text)

        account = run_bench(
            system,
            options.stage,
            config,
            store,
            choice,
            online=options.teacher == "online",
            repeats=options.repeats,
            dtype=dtype_of(config),
            say=console.print,
            progress=progress,
        )
    account = {
        "preset": options.config or options.preset,
        "store": config.store,
        **account,
    }
    if options.json:
        text = json.dumps(account, indent=1) + "\n"
        Path(options.json).write_text(text, encoding="utf-8")
    show(account, console)


def _runner(options: Bench, num_devices: int) -> str:
    if options.runner == "single" and num_devices > 1:
        raise InputError(
            f"The runner single uses one device, not {num_devices}: choose shard_map, "
            "pmap or mesh."
        )
    if options.runner != "auto":
        return options.runner
    if options.fully_sharded:
        return "mesh"
    return "single" if num_devices == 1 else "shard_map"


def with_dtype(config: Any, dtype: str) -> Any:
    """Sets the activations' dtype of every model that has one; "auto" sets none.

    Raises:
        InputError: If no model of the system has a dtype.
    """
    if dtype == "auto":
        return config
    found = _dtypes(config)
    if not found:
        raise InputError("This system's models have no --dtype.")
    return override(config, dict.fromkeys(found, dtype))


def dtype_of(config: Any) -> str:
    """Returns the activations' dtype of the first model that has one, or float32."""
    return next(iter(_dtypes(config).values()), "float32")


def _dtypes(config: Any, group: str = "") -> dict[str, str]:
    """Returns the dtypes of all models by their dotted names."""
    found: dict[str, str] = {}
    for field in dataclasses.fields(config):
        name, value = group + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= _dtypes(value, f"{name}.")
        elif field.name == "dtype" and value in _DTYPES:
            found[name] = value
    return found


def show(account: Mapping[str, Any], console: Terminal) -> None:
    """Prints an account of `run_bench` as a table."""
    mode = account["earlier_stages"]
    given = "" if mode == "none" else f", earlier stages {mode}"
    console.print(
        f"{account['system']}, {account['stage']}{given}: {account['runner']} on "
        f"{account['devices']} {account['platform']} device(s), "
        f"{account['dtype']}, batch {account['batch_size']}."
    )
    table = Table()
    table.add_column("part of a step")
    for name in ("ms", "+-", "share"):
        table.add_column(name, justify="right")
    for row in account["parts"]:
        table.add_row(
            row["part"],
            f"{row['ms']:,.2f}",
            f"{row['spread_ms']:,.2f}" if row["part"] != "other" else "",
            f"{100 * row['share']:.1f} %",
        )
    table.add_section()
    table.add_row(bold("step"), bold(f"{account['step_ms']:,.2f}"), "", "100 %")
    console.print(table)
    share, memory = account["share_of_peak"], account["memory"]
    of = "" if share is None else f", {100 * share:.1f} % of"
    peak = account["peak_flops_per_s"]
    of += "" if peak is None else f" {peak / 1e9:,.0f} GFLOP/s"
    console.print(
        f"{account['windows_per_s']:,.1f} windows/s; "
        f"{account['flops_step'] / 1e9:,.3g} GFLOP a step, "
        f"{account['flops_per_s'] / 1e9:,.3g} GFLOP/s{of} ({account['peak_source']})."
    )
    device = memory["device_peak_bytes"]
    held = "" if device is None else f"device {device / 2**20:,.0f} MiB at most; "
    console.print(
        f"Memory: {held}host {memory['host_peak_bytes'] / 2**20:,.0f} MiB at most, "
        f"{memory['host_peak_bytes_before'] / 2**20:,.0f} MiB before the models. "
        f"Compiled in {account['compile_s']:.1f} s."
    )
    console.print(
        "Parts are differences of nested programs that took turns, medians over "
        f"{account['repeats']}; +- is half their quartiles' distance. What they leave "
        "of the step is other; one below zero is noise, or work that overlaps."
    )
    if abs(account["parts"][-1]["share"]) > _MAX_REST:
        console.print(
            bold("The parts do not add up to the step within 5 %:") + " the machine "
            "was busy with something else. Repeat when it is not, or with more "
            "--repeats."
        )
