"""How tests compile: in a hurry, and a program once for this run and the next.

Set through the environment, so that programs which tests start inherit it.
"""

import os
import re
from importlib.metadata import version
from pathlib import Path

FULL = os.environ.get("EEGKD_TEST_OPT") == "full"
"""Whether programs are optimised, as a user's are."""

_LEVEL = "--xla_backend_optimization_level"
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_MAX_BYTES = 2**31


def set_environment() -> None:
    """Chooses flags and the cache of compiled programs; before jax is imported."""
    flags = os.environ.get("XLA_FLAGS", "")
    if not FULL and _LEVEL not in flags:
        flags = os.environ["XLA_FLAGS"] = f"{flags} {_LEVEL}=0".strip()
    if _CACHE not in os.environ:
        name = re.sub(r"[^\w=]+", "-", f"{version('jaxlib')}{flags and ' '}{flags}")
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
