"""Single models of braindecode, without what the whole package imports.

`import braindecode.models` needs skorch, torchaudio and linear_attention_transformer,
for models that are not compared here. So the packages' own `__init__` is passed over,
and the one module that wants torchaudio at import finds an empty one.
"""

import importlib
import importlib.util
import sys
import types

import pytest

_TORCHAUDIO = {
    "torchaudio": (),
    "torchaudio.functional": ("fftconvolve", "filtfilt", "lfilter"),
}


def braindecode_module(name: str) -> types.ModuleType:
    """Imports `braindecode.models.<name>`, or skips the tests that want it."""
    for needed in ("torch", "einops", "torchinfo", "docstring_inheritance"):
        pytest.importorskip(needed)
    if importlib.util.find_spec("braindecode") is None:
        pytest.skip("braindecode is missing: pip install --no-deps braindecode")
    for package in ("braindecode", "braindecode.models"):
        if package not in sys.modules:
            spec = importlib.util.find_spec(package)
            sys.modules[package] = importlib.util.module_from_spec(spec)
    if importlib.util.find_spec("torchaudio") is None:
        for package, functions in _TORCHAUDIO.items():
            empty = types.ModuleType(package)
            empty.__spec__ = importlib.util.spec_from_loader(package, loader=None)
            vars(empty).update(dict.fromkeys(functions))
            sys.modules[package] = empty
    return importlib.import_module(f"braindecode.models.{name}")
