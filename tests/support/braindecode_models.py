"""Single models of braindecode, for the tests that compare with them."""

import types

import pytest

from experiments.benchmarks.braindecode_models import import_model, missing_packages


def braindecode_module(name: str) -> types.ModuleType:
    """Imports `braindecode.models.<name>`, or skips the tests that want it."""
    if missing := missing_packages():
        pytest.skip(f"{', '.join(missing)} is missing (the extra parity)")
    return import_model(name)
