"""The examples in the losses' docstrings are run."""

import doctest
import importlib
import pkgutil

import pytest

import eegkd.losses

MODULES = [m.name for m in pkgutil.iter_modules(eegkd.losses.__path__)]


@pytest.mark.slow  # Computed operation by operation, and each of them is compiled.
@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    module = importlib.import_module(f"eegkd.losses.{name}")
    assert doctest.testmod(module).failed == 0


def test_every_loss_with_a_teacher_has_an_example():
    names = [n for n in eegkd.losses.__all__ if callable(getattr(eegkd.losses, n))]
    assert len(names) > 25
    plain = {"Term", "Balancer", "combine", "term_means", "total_loss", "weighted_mean"}
    plain |= {"binary_cross_entropy", "cosine_distance", "cross_entropy"}
    bare = [n for n in names if ">>>" not in (getattr(eegkd.losses, n).__doc__ or "")]
    assert set(bare) <= plain
