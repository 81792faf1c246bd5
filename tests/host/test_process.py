"""Settings of the process."""

import os
import subprocess
import sys

import jax
import pytest

from eegkd.host.process import keep_freed_memory, recompile_across_cpus

PROGRAM = """
from pathlib import Path
import resource
import numpy as np
from eegkd.host.process import keep_freed_memory, recompile_across_cpus

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()

done = {setting} and keep_freed_memory()
before = resident()
np.ones(2**26, np.uint8)
print(int(done), resident() - before)
"""


def still_held(setting: bool) -> tuple[bool, int]:
    """Returns whether it was set, and bytes kept of 64 MiB that were freed.

    That is more than glibc ever keeps by itself. Memory is counted, not page faults:
    how many faults it takes depends on the size of the kernel's pages.
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
    done, kept = still_held(True)
    if not done:
        pytest.skip("this C library has no mallopt")
    _, left = still_held(False)
    assert left < 2**23 < 2**25 < kept


def test_settings_of_the_user_win(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not keep_freed_memory()


@pytest.mark.parametrize(("num", "afresh"), [(1, False), (2, True)])
def test_programs_across_cpus_are_never_taken_from_disk(monkeypatch, num, afresh):
    set_to = {}
    monkeypatch.setattr(jax.config, "update", set_to.__setitem__)
    recompile_across_cpus(num)
    assert set_to == ({"jax_enable_compilation_cache": False} if afresh else {})
