"""Single models of braindecode, without what the whole package imports.

`import braindecode.models` needs skorch, torchaudio and linear_attention_transformer,
for models that are not compared here. So the packages' own `__init__` is passed over,
and the one module that wants torchaudio at import finds an empty one.
"""

import importlib
import importlib.util
import sys
import types

NEEDED = ("torch", "einops", "torchinfo", "docstring_inheritance", "braindecode")
_TORCHAUDIO = {
    "torchaudio": (),
    "torchaudio.functional": ("fftconvolve", "filtfilt", "lfilter"),
}


def missing_packages() -> tuple[str, ...]:
    """Lists what is not installed of the packages that its models need."""
    return tuple(name for name in NEEDED if importlib.util.find_spec(name) is None)


def import_model(name: str) -> types.ModuleType:
    """Imports `braindecode.models.<name>`.

    Raises:
        ImportError: If a package is missing.
    """
    if missing := missing_packages():
        raise ImportError(
            f"{', '.join(missing)} missing: pip install --no-deps braindecode, and "
            f"pip install {' '.join(NEEDED[:-1])}"
        )
    for package in ("braindecode", "braindecode.models"):
        spec = importlib.util.find_spec(package)
        if package not in sys.modules and spec is not None:
            sys.modules[package] = importlib.util.module_from_spec(spec)
    if importlib.util.find_spec("torchaudio") is None:
        for package, functions in _TORCHAUDIO.items():
            empty = types.ModuleType(package)
            empty.__spec__ = importlib.util.spec_from_loader(package, loader=None)
            vars(empty).update(dict.fromkeys(functions))
            sys.modules[package] = empty
    return importlib.import_module(f"braindecode.models.{name}")
