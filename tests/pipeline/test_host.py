"""Settings of the process."""

import os
import subprocess
import sys

import pytest

from eegkd.pipeline.host import keep_freed_memory

PROGRAM = """
import resource
import numpy as np
from eegkd.pipeline.host import keep_freed_memory

done = {setting} and keep_freed_memory()
for _ in range(3):
    np.ones(2**26, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**26, np.uint8)
print(int(done), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(setting: bool) -> tuple[bool, int]:
    """Returns whether it was set, and page faults of ten allocations of 64 MiB.

    That is more than glibc ever keeps by itself.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(setting=setting)],
        check=True,
        capture_output=True,
        text=True,
        env=env,
    )
    flag, number = done.stdout.split()
    return bool(int(flag)), int(number)


@pytest.mark.slow
def test_freed_memory_is_kept_in_the_process():
    done, kept = faults(True)
    if not done:
        pytest.skip("this C library has no mallopt")
    _, mapped = faults(False)
    assert kept < 1000 < mapped


def test_settings_of_the_user_win(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not keep_freed_memory()
