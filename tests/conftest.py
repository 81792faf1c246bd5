"""Four CPU devices, checked shapes, and absl flags as grain's workers want them."""

# ruff: noqa: E402

from tests.support import compiling

compiling.set_environment()

import jax
import jaxtyping
import numpy as np
import pytest
from absl import flags
from hypothesis import settings

from tests.support.budget import Budget

jax.config.update("jax_num_cpu_devices", 4)
jax.devices()  # Started now: a verb's own --devices must not change what others see.
flags.FLAGS.mark_as_parsed()
# Before the first import of the package: annotated shapes become checks. Eager calls
# may be given NumPy arrays.
jaxtyping.Array = jax.Array | np.ndarray
CHECKED = ["eegkd.evaluate", "eegkd.losses", "eegkd.models", "eegkd.systems"]
jaxtyping.install_import_hook(CHECKED, "beartype.beartype")
# A first example compiles, and a busy machine is no failure.
settings.register_profile("eegkd", deadline=None)
settings.load_profile("eegkd")


def pytest_configure(config):
    config.pluginmanager.register(Budget(config), "eegkd-budget")


def pytest_terminal_summary(terminalreporter):
    """Prints the lines that tests of damaged files have recorded."""
    reports = [r for some in terminalreporter.stats.values() for r in some]
    found = [p for r in reports for p in getattr(r, "user_properties", ())]
    lines = [x for name, text in found if name == "fuzz" for x in text.splitlines()]
    if lines:
        terminalreporter.write_sep("=", "damaged files")
        terminalreporter.write_line("\n".join(dict.fromkeys(lines)))


def pytest_collection_modifyitems(items):
    if compiling.FULL:
        return
    reason = "reads what the compiler makes at full optimisation: EEGKD_TEST_OPT=full"
    for item in items:
        if item.get_closest_marker("optimised"):
            item.add_marker(pytest.mark.skip(reason=reason))
