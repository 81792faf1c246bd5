"""Knowledge distillation of large EEG and ECG models into small ones, in JAX.

Subpackages load on first use, so `import eegkd` costs no jax import.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:  # None is loaded before it is used.
    from eegkd import (
        bench,
        cache,
        config,
        convert,
        data,
        deploy,
        errors,
        evaluate,
        host,
        losses,
        models,
        ops,
        pipeline,
        plan,
        systems,
        train,
        typing,
    )

__all__ = [
    "__version__",
    "bench",
    "cache",
    "config",
    "convert",
    "data",
    "deploy",
    "errors",
    "evaluate",
    "host",
    "losses",
    "models",
    "ops",
    "pipeline",
    "plan",
    "systems",
    "train",
    "typing",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    if name in __all__:
        return _importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
