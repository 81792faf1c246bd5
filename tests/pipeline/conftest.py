"""Runs of this folder compile a program once, as commands do."""

import os

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache


@pytest.fixture(scope="package", autouse=True)
def compiled_once(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    together = "PYTEST_XDIST_WORKER" in os.environ
    folder = (base.parent if together else base) / "xla"
    options = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
        # jax locks the folder if it has a limit, and processes share it.
        "jax_compilation_cache_max_size": 2**31,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()
