"""Settings of this process that make compiled steps start and run faster."""

import ctypes
import os
import sys
from pathlib import Path

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def tune_process(*, quick_compile: bool = False) -> None:
    """Keeps compiled programs on disk, and freed memory in the process.

    For programs, before they use jax; a library's import must not change its caller's
    process.

    Args:
        quick_compile: Skip the slow passes of XLA's compiler for CPUs. It changes last
            digits, so a run that began with it has to go on with it.
    """
    keep_freed_memory()
    if quick_compile:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_llvm_disable_expensive_passes=true"
    keep_compiled_programs()


def keep_compiled_programs() -> None:
    """Keeps compiled programs between runs, unless the user has set otherwise."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update(
            "jax_compilation_cache_dir", str(Path(root) / "eegkd" / "xla")
        )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_freed_memory() -> bool:
    """Makes glibc reuse a step's buffers and not hand them back each update.

    XLA on a CPU allocates all temporaries of a step anew. By default they are mapped
    and unmapped every time: at small sizes 22,000 page faults and a quarter of the
    step's time. One arena, because the others are too small for such buffers.
    Variables such as MALLOC_ARENA_MAX, where the user set them, win.

    Returns:
        True if it was done; False where the C library is another one.
    """
    if sys.platform == "win32":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "gnu_get_libc_version"):
        return False
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    settings = {_ARENA_MAX: 1, _MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: 2**31 - 1}
    return all([libc.mallopt(name, value) for name, value in settings.items()])


def force_cpu_devices(num: int) -> None:
    """Makes `num` devices of a CPU, where JAX has no accelerator; before it starts.

    They share the cores: what works on them works on several accelerators, and no step
    is faster.
    """
    import jax

    if num < 2:
        return
    try:
        jax.config.update("jax_num_cpu_devices", num)
    except RuntimeError:
        # JAX has started, and its devices are fixed. `pick_devices` reports it if they
        # are too few.
        return


def recompile_across_cpus(num: int) -> None:
    """Compiles afresh if `num` devices of a CPU share a step; starts JAX.

    Seen with jaxlib 0.10: programs over several of them that come from the cache on
    disk may wait for each other for ever, the same ones compiled afresh do not.
    """
    import jax

    if num > 1 and jax.default_backend() == "cpu":
        jax.config.update("jax_enable_compilation_cache", False)


def peak_resident() -> int:
    """Returns the most bytes of memory that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss includes the process that started this one
        line = next(x for x in status.read_text().splitlines() if "VmHWM" in x)
        return int(line.split()[1]) * 2**10
    import resource  # Not on Windows.

    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def num_cores() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
