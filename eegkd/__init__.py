"""Knowledge distillation of large EEG and ECG models into small ones, in JAX.

Subpackages load on first use, so `import eegkd` costs no jax import.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_SUBPACKAGES = (
    "bench",
    "cache",
    "config",
    "convert",
    "data",
    "deploy",
    "evaluate",
    "host",
    "losses",
    "models",
    "ops",
    "pipeline",
    "plan",
    "systems",
    "train",
)


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES])
