"""LoRA steps of LLaVA 7B and 13B on a GPU, random weights in bfloat16, beside the plan.

    python -m experiments.benchmarks.vlm_gpu [--quick]

Without a CUDA GPU it says so and ends. Each model runs in a process of its own, which
frees the memory of the one before; those that the plan says do not fit are left out.
The last line it prints is its rows as JSON: tokens per second, model FLOP/s utilisation
(mfu: operations that the step needs, those computed again not counted, over the chip's
peak in bfloat16), and the peak of memory over the planned one.
"""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
import time
import zlib
from typing import Any

from eegkd.plan.account import plan_model
from eegkd.plan.catalogue import LoraOptions, ModelPlan
from eegkd.plan.chips import chip_of
from eegkd.plan.costs import trace_model

MODELS = ("llava-1.5-7b", "llava-1.5-13b")
OPTIONS = ModelPlan(lora=LoraOptions(rank=128), batch_size=8, length=2048)
SECONDS = 250


def fill(shapes: Any, key: Any) -> Any:
    """Draws weights a leaf at a time, so that no second copy of all is ever there."""
    import jax

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def draw(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        return 0.02 * jax.random.normal(key, shape, dtype)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def ones(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.numpy.ones(shape, dtype)

    def make(path: Any, x: Any) -> Any:
        if getattr(path[-1], "key", "") == "scale":
            return ones(x.shape, x.dtype)
        mixed = jax.random.fold_in(key, zlib.crc32(str(path).encode()) >> 1)
        return draw(mixed, x.shape, x.dtype)

    return jax.tree_util.tree_map_with_path(make, shapes)


def make_batch(model: Any, traced: Any) -> dict[str, Any]:
    """Draws text around one image; half of each row is to be learned."""
    import numpy as np

    rng = np.random.default_rng(0)
    shapes = traced.batch
    size, length = shapes["ids"].shape
    words = model.decoder.vocab_size
    ids = rng.integers(1, words, (size, length)).astype(np.int32)
    labels = np.where(np.arange(length) < length // 2, -100, ids)
    batch = {
        "ids": ids,
        "mask": np.ones((size, length), bool),
        "labels": labels.astype(np.int32),
    }
    if "pixels" in shapes:
        num = model.visual_tokens
        at = np.full((size, length), -1, np.int32)
        at[:, 1 : 1 + num] = np.arange(num)
        order = np.broadcast_to(np.arange(num, dtype=np.int32), (size, num))
        pixels = rng.normal(size=shapes["pixels"].shape).astype(np.float32)
        batch |= {"pixels": pixels, "visual_at": at, "visual_index": order}
    return batch


def run_model(name: str, options: ModelPlan, steps: int) -> dict[str, float]:
    """Times some steps on the first device."""
    import jax

    from eegkd.train import OptimConfig, init_state, make_optimiser, make_train_step
    from eegkd.train.parallel import single

    model, traced = trace_model(name, options, attention=None)
    stage = traced.stage
    variables = fill(traced.variables, jax.random.key(0))
    tx = make_optimiser(OptimConfig(weight_decay=0.0), 1000)
    state = init_state(stage, variables, tx, jax.random.key(1))
    frozen = variables.frozen
    del variables
    make = lambda axis: make_train_step(traced.system, stage.name, tx, axis_name=axis)
    runner = single(make)
    batch = runner.put(make_batch(model, traced))
    start = time.perf_counter()
    compiled = runner.step.lower(state, frozen, {}, batch).compile()  # type: ignore[attr-defined]
    facts = {"compile_s": time.perf_counter() - start}
    times = []
    for turn in range(steps + 1):
        start = time.perf_counter()
        state, metrics = compiled(state, frozen, {}, batch)
        loss = float(metrics["loss"])
        if turn:
            times.append(time.perf_counter() - start)
    facts |= {"step_s": statistics.median(times), "step_s_best": min(times)}
    facts["loss"] = loss
    memory = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in memory:
        facts["peak_gib"] = memory["peak_bytes_in_use"] / 2**30
    account = compiled.memory_analysis()
    if account is not None:
        held = account.argument_size_in_bytes + account.temp_size_in_bytes
        facts["compiler_gib"] = held / 2**30
    return facts


def describe_device() -> tuple[str, int]:
    """Returns the kind and the memory of the first GPU; asks in another process."""
    code = (
        "import jax; d = jax.devices('cuda')[0]; m = d.memory_stats() or {}; "
        "print(d.device_kind); print(m.get('bytes_limit', 0))"
    )
    environment = os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".97"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        return "", 0
    kind, limit = done.stdout.splitlines()[-2:]
    return kind, int(limit)


def time_model(
    name: str, options: ModelPlan, steps: int, kind: str, limit: int
) -> dict[str, float]:
    """Runs a model in a process of its own, and compares it with the plan.

    Args:
        name: Name of the model.
        options: How it is trained.
        steps: To time.
        kind: Kind of the device.
        limit: Bytes of its memory that may be used; 0 where unknown.
    """
    plan = plan_model(name, options)
    planned = plan["memory_bytes"]
    facts = {"planned_gib": planned / 2**30}
    if limit and planned > limit:
        return facts | {"left_out_device_gib": limit / 2**30}
    command = [sys.executable, "-m", __spec__.name, "--run", name]
    command += ["--steps", str(steps), "--batch_size", str(options.batch_size)]
    command += ["--length", str(options.length)]
    environment = os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".97"}
    environment.pop("JAX_PLATFORMS", None)
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=SECONDS,
            env=environment,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{name}: {error}\n")
        return facts | {"failed": 1.0}
    facts |= json.loads(done.stdout.splitlines()[-1])
    seconds = facts["step_s"]
    facts["tokens_per_s"] = options.batch_size * options.length / seconds
    chip = chip_of(kind)
    if chip is not None:
        needed = plan["flops"]["step_without_recomputation"]
        facts["mfu"] = needed / seconds / chip.half_flops
        facts["hardware_utilisation"] = (
            plan["flops"]["step"] / seconds / chip.half_flops
        )
    if "peak_gib" in facts:
        facts["peak_over_plan"] = facts["peak_gib"] * 2**30 / planned
    return facts


def main() -> None:
    """Runs the models, and prints the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="7B alone, 2 steps")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch_size", type=int, default=OPTIONS.batch_size)
    parser.add_argument("--length", type=int, default=OPTIONS.length)
    parser.add_argument("--run", choices=MODELS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    options = dataclasses.replace(
        OPTIONS, batch_size=args.batch_size, length=args.length
    )
    if args.run:
        facts = run_model(args.run, options, args.steps)
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    kind, limit = describe_device()
    if not kind:
        sys.stderr.write("No CUDA GPU that jax can use: its part is left out.\n")
        sys.stdout.write("[]\n")
        return
    # The plan traces by shapes on the CPU: a GPU's fused kernels cannot be counted.
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    jax.config.update("jax_platforms", "cpu")
    rows = []
    for name in MODELS[:1] if args.quick else MODELS:
        steps = 2 if args.quick else args.steps
        facts = time_model(name, options, steps, kind, limit)
        case = f"{name}, LoRA {options.lora.rank}, {kind}"
        rows += [
            {
                "case": case,
                "implementation": "eegkd",
                "metric": metric,
                "value": round(x, 4),
            }
            for metric, x in facts.items()
        ]
        sys.stderr.write(f"{name}: {facts}\n")
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
