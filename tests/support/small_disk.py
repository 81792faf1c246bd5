"""A disk of a few megabytes, to be filled: where the user may mount one."""

import contextlib
import os
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(folder, *, megabytes):
    """Mounts a file system in memory on a new folder; skips where that is forbidden."""
    place = folder / "disk"
    place.mkdir()
    if os.name == "nt" or not shutil.which("mount"):
        pytest.skip("no mount: a really full disk cannot be made here")
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m"]
    command = ["mount", *options, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["refused"]
        pytest.skip(f"may not mount a small disk ({reason[0]})")
    try:
        yield place
    finally:
        # Lazily: a process that was killed a moment ago may still hold a file.
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(folder, *, leave):
    """Writes a file that leaves so many bytes free."""
    filler = folder / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - leave)))
    return filler
