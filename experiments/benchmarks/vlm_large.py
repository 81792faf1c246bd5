"""Compiles a large model's LoRA step for devices that are not there; nothing is run.

    python -m experiments.benchmarks.vlm_large [--model vicuna-13b] [--devices 8]

Arguments are shapes with places on forced CPU devices, so that nothing is allocated.
The last line it prints is its rows as JSON: seconds to lower and to compile, the
compiler's account of memory beside that of `eegkd plan`, how many results of the traced
step have the shape of a frozen weight (a gradient would be one), and how many arrays of
one device's program hold tokens of the whole batch (none, if it is cut).

A CPU multiplies no bfloat16: the compiler there keeps copies of weights and tokens in
float32, which another chip does not. `--dtype float32` compares without them.
"""

import argparse
import functools
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

from eegkd.host.process import force_cpu_devices
from eegkd.plan.account import plan_model
from eegkd.plan.catalogue import LoraOptions, ModelPlan
from eegkd.plan.costs import TracedStep, trace_model
from eegkd.train.parallel import mesh

PLATFORMS = ("tpu", "cuda")
_SUMS = ("dot_general", "add_any", "scatter-add")


def lay_out(traced: TracedStep, options: ModelPlan) -> tuple[Any, tuple[Any, ...]]:
    """Returns the jitted step of the runner `mesh`, and its arguments as shapes."""
    runner = mesh(
        lambda axis: traced.step,
        jax.devices()[: options.devices],
        model=options.model_axis,
        fully_sharded=options.fully_sharded,
    )
    places = (traced.state, traced.variables.frozen, {})
    return runner.step, (*runner.place(places), runner.put(traced.batch))


def frozen_gradients(traced: TracedStep) -> list[tuple[int, ...]]:
    """Lists results of the step, of products and loops, that look like a gradient.

    Their shape is that of a frozen weight, of its stack of layers, or its transpose.
    """
    whole = {x.shape for x in jax.tree.leaves(traced.variables.frozen) if x.ndim > 1}
    shapes = whole | {shape[1:] for shape in whole if len(shape) > 2}
    shapes |= {(*shape[:-2], *shape[:-3:-1]) for shape in shapes}
    args = (traced.state, traced.variables.frozen, {}, traced.batch)
    jaxpr = jax.make_jaxpr(traced.step)(*args).jaxpr
    return [shape for shape in _results(jaxpr) if shape in shapes]


def _results(jaxpr: Any) -> Iterator[tuple[int, ...]]:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in (*_SUMS, "scan"):
            yield from (var.aval.shape for var in eqn.outvars)
        for value in jax.tree.leaves(
            list(eqn.params.values()),
            is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
                yield from _results(getattr(value, "jaxpr", value))


def whole_batch_arrays(hlo: str, options: ModelPlan) -> int:
    """Counts results that hold vectors of all tokens of all examples."""
    whole = rf" = \w+\[{options.batch_size},{options.length},\d{{4,}}\]"
    return len(re.findall(whole, hlo))


def measure(name: str, options: ModelPlan) -> dict[str, float]:
    """Lowers and compiles the step; returns what it took and what it will take."""
    _, traced = trace_model(name, options)
    step, args = lay_out(traced, options)
    start = time.perf_counter()
    lowered = step.lower(*args)
    middle = time.perf_counter()
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    facts = {"lower_s": middle - start, "compile_s": time.perf_counter() - middle}
    plan = plan_model(name, options)
    kept = plan["memory"]
    # Gradients live inside the step.
    before = sum(kept.values()) - kept["gradients"]
    inside = kept["gradients"] + sum(plan["memory_estimate"].values())
    facts |= {
        "arguments_gib": memory.argument_size_in_bytes / 2**30,
        "planned_arguments_gib": before / 2**30,
        "temporary_gib": memory.temp_size_in_bytes / 2**30,
        "planned_temporary_gib": inside / 2**30,
        "frozen_gradients": len(frozen_gradients(traced)),
        "whole_batch_arrays": whole_batch_arrays(compiled.as_text(), options),
    }
    facts["arguments_over_plan"] = memory.argument_size_in_bytes / before
    facts["temporary_over_plan"] = memory.temp_size_in_bytes / inside
    return facts


def lower_for(name: str, options: ModelPlan) -> dict[str, float]:
    """Lowers the step for other chips; returns the seconds of each."""
    facts = {}
    for platform in PLATFORMS:
        step, args = lay_out(trace_model(name, options)[1], options)
        start = time.perf_counter()
        step.trace(*args).lower(lowering_platforms=(platform,))
        facts[f"lower_{platform}_s"] = time.perf_counter() - start
    return facts


def main() -> None:
    """Compiles, and prints the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vicuna-13b")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--model_axis", type=int, default=1)
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    force_cpu_devices(args.devices)
    options = ModelPlan(
        lora=LoraOptions(rank=args.rank),
        batch_size=args.batch_size,
        length=args.length,
        devices=args.devices,
        model_axis=args.model_axis,
        fully_sharded=args.devices > args.model_axis,
        dtype=args.dtype,
        attention="plain",
    )
    facts = measure(args.model, options) | lower_for(args.model, options)
    case = f"{args.model}, LoRA {args.rank}, {args.devices} devices, {args.dtype}"
    row = functools.partial(dict, case=case, implementation="eegkd")
    rows = [row(metric=name, value=round(x, 4)) for name, x in facts.items()]
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
