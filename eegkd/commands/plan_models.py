"""`eegkd plan MODEL`: a tower, decoder or LLaVA of a known name; nothing runs."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from eegkd.commands.options import parse
from eegkd.commands.verbs import spell_out
from eegkd.plan.models import plan_model
from eegkd.plan.trace import ModelPlan

_EXACT = "exact, by the shapes"
_ESTIMATE = "an estimate, before the compiler fuses"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanModel(ModelPlan):
    """Account for a training step of a model by its shapes; nothing is run.

    Attributes:
        json: Print JSON in place of tables.
    """

    json: bool = False


def main(name: str, args: Sequence[str]) -> None:
    """Runs the verb for a model."""
    spelled = spell_out(args, "json", "fully_sharded")
    given = parse(PlanModel, spelled, f"plan {name}")
    fields = (field.name for field in dataclasses.fields(ModelPlan))
    options = ModelPlan(**{field: getattr(given, field) for field in fields})
    plan = plan_model(name, options)
    if given.json:
        sys.stdout.write(json.dumps(plan, indent=1) + "\n")
        return
    show(plan, Console())


def show(plan: Mapping[str, Any], console: Console) -> None:
    """Prints the account as tables."""
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
    console.print(_parts(plan))
    console.print(_costs(plan))
    for path, reason in plan["cut_by_shape"].items():
        console.print(f"{path}: {reason}; cut along its largest axis that divides.")
    console.print(
        "Operations are counted in the traced program. What a compiler needs beside "
        "these bytes (copies, buffers of collectives, fragments) is not among them."
    )


def _parts(plan: Mapping[str, Any]) -> Table:
    table = Table(title="Parameters")
    table.add_column("part")
    for name in ("each", "copies", "all"):
        table.add_column(name, justify="right")
    for part in plan["parts"]:
        frozen = "" if part["trained"] else " (frozen)"
        each = part["parameters"] // part["copies"]
        cells = (f"{each:,}", str(part["copies"]), f"{part['parameters']:,}")
        table.add_row(part["name"] + frozen, *cells)
    table.add_section()
    if len(plan["groups"]) > 1:
        for group, number in plan["groups"].items():
            table.add_row(f"[bold]{group}", "", "", f"{number:,}")
    table.add_row("[bold]trained", "", "", f"{plan['trained']:,}")
    table.add_row("[bold]all", "", "", f"{plan['parameters']:,}")
    return table


def _costs(plan: Mapping[str, Any]) -> Table:
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
        table.add_row(name, _gib(value), f"a device, {_EXACT}")
    for name, value in plan["memory_estimate"].items():
        table.add_row(name.replace("_", " "), _gib(value), f"a device, {_ESTIMATE}")
    table.add_row("[bold]a step", _gib(plan["memory_bytes"]), "a device")
    if "kv_cache" in plan:
        table.add_section()
        cache = plan["kv_cache"]
        table.add_row("keys and values", _gib(cache["bytes"]), "a device, to generate")
    if "fits" in plan:
        table.add_section()
        chip = plan["chip"]["name"]
        fits = "yes" if plan["fits"] else "[bold]NO"
        table.add_row(f"fits {chip}", fits, "")
        least = f"{1000 * plan['least_step_s']:,.1f} ms"
        table.add_row("a step at least", least, "operations at its peak, no links")
    return table


def _gib(value: int) -> str:
    return f"{value / 2**30:,.3f} GiB"
