"""kill -9 in the middle of a run, then the same command again."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


def command(out):
    return [sys.executable, "-m", "tests.pipeline.tiny", str(out)]


def kill_while_training(out, model):
    """Kills the run once `model` has a checkpoint and is not finished."""
    process = subprocess.Popen(
        command(out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    pattern = f"fold0/{model}/**/checkpoints/[0-9]*/meta.json"
    while time.monotonic() < deadline and process.poll() is None:
        if any(out.glob(pattern)):
            process.kill()
            process.wait()
            return
        time.sleep(0.005)
    raise AssertionError(f"{model} was not caught in training")


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    kill_while_training(killed, "teacher")
    kill_while_training(killed, "student")
    subprocess.run(command(killed), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    names = sorted(p.relative_to(whole) for p in whole.rglob("variables.safetensors"))
    assert len(names) == 4
    for name in names:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    for name in sorted(p.relative_to(whole) for p in whole.rglob("test.npz")):
        with np.load(whole / name) as a, np.load(killed / name) as b:
            np.testing.assert_array_equal(a["prob"], b["prob"])
