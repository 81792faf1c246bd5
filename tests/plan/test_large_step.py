"""The step of 13 billion parameters with LoRA, by shapes: nothing is allocated."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eegkd.plan.catalogue import LoraOptions, ModelPlan
from eegkd.plan.costs import trace_model
from experiments.benchmarks.vlm_large import frozen_gradients

ROOT = Path(__file__).parents[2]


def compiled(*args):
    """Lowered and compiled for 8 devices in a process of its own."""
    command = [sys.executable, "-m", "experiments.benchmarks.vlm_large", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    return {row["metric"]: row["value"] for row in rows}


@pytest.mark.slow
def test_it_compiles_for_eight_devices_in_a_minute_and_lowers_for_other_chips():
    facts = compiled()
    assert facts["lower_s"] + facts["compile_s"] < 60
    assert facts["lower_tpu_s"] > 0
    assert facts["lower_cuda_s"] > 0
    assert facts["frozen_gradients"] == 0
    # Weights come to each device's own tokens, and not the tokens of all to weights.
    assert facts["whole_batch_arrays"] == 0
    assert facts["arguments_over_plan"] == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_the_plan_is_near_the_compilers_account():
    """In float32, which a CPU computes in without copies of what is in bfloat16."""
    facts = compiled("--dtype", "float32")
    assert facts["arguments_over_plan"] == pytest.approx(1, abs=1e-3)
    assert 0.5 < facts["temporary_over_plan"] < 2


@pytest.mark.parametrize("rank", [128, 0])
def test_no_buffer_has_a_frozen_weights_shape(rank):
    """Without adapters, the control, every weight has a gradient of its shape."""
    options = ModelPlan(lora=LoraOptions(rank=rank), length=256)
    _, traced = trace_model("vicuna-13b", options)
    if rank:
        assert frozen_gradients(traced) == []
        return
    _, frozen = trace_model(
        "vicuna-13b", ModelPlan(lora=LoraOptions(rank=1), length=256)
    )
    whole = traced._replace(
        variables=traced.variables._replace(frozen=frozen.variables.frozen)
    )
    found = frozen_gradients(
        whole._replace(step=lambda s, f, u, b: traced.step(s, {}, u, b))
    )
    assert (5120, 13824) in found
    assert (40, 5120, 13824) in found
