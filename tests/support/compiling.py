"""How tests compile: in a hurry, and a program once for this run and the next.

Set through the environment, so that programs which tests start inherit it.
"""

import os
import re
from importlib.metadata import version
from pathlib import Path

FULL = os.environ.get("EEGKD_TEST_OPT") == "full"
"""Whether programs are optimised, as a user's are."""

_FLAGS = {
    "--xla_backend_optimization_level": "0",
    # Or else a program over several CPU devices that comes from the cache may wait for
    # ever: each device runs independent collectives in an order of its own.
    "--xla_cpu_enable_concurrency_optimized_scheduler": "false",
}
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_MAX_BYTES = 2**31


def set_environment() -> None:
    """Chooses flags and the cache of compiled programs; before jax is imported."""
    if FULL:
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        return
    flags = os.environ.get("XLA_FLAGS", "")
    new = [f"{name}={value}" for name, value in _FLAGS.items() if name not in flags]
    flags = os.environ["XLA_FLAGS"] = " ".join([flags, *new]).strip()
    if _CACHE not in os.environ:
        name = re.sub(r"[^\w=]+", "-", f"{version('jaxlib')} {flags}")
        root = Path(__file__).parents[2] / ".pytest_cache" / "xla"
        folder = os.environ[_CACHE] = str(root / name)
        trim(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def trim(folder: str | Path, max_bytes: int = _MAX_BYTES) -> None:
    """Removes the oldest programs of a cache that has grown over its limit.

    By hand: under a limit of its own, jax looks at every program for each new one.
    """
    found = [(p.stat(), p) for p in Path(folder).glob("*") if p.is_file()]
    size = sum(stat.st_size for stat, _ in found)
    if size <= max_bytes:
        return
    for stat, path in sorted(found, key=lambda pair: pair[0].st_mtime):
        path.unlink(missing_ok=True)
        size -= stat.st_size
        if size <= max_bytes // 2:
            return
