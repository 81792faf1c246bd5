"""Damaged input of every kind: refused with words, or read, and nothing else.

Fifty seeds a target are slow, a thousand more nightly. Failures name the command that
repeats them; figures by target stand at the end of the run.
"""

import importlib.util

import pytest

from tests.fuzz.runner import Runner, failures, figures
from tests.fuzz.targets import CASES, NIGHTLY, TARGETS

NAMES, VERBS = ([target.name for target in some] for some in (TARGETS, NIGHTLY))


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("fuzz"))
    yield runner
    runner.close()


def check(runner, name, seeds, record_property):
    if name == "torch" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch's files want torch")
    found = runner.run(name, seeds)
    record_property("fuzz", figures(found))
    assert not failures(found), f"\n{failures(found)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_fifty_seeds(runner, name, record_property):
    check(runner, name, range(50), record_property)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*NAMES, *VERBS])
def test_a_thousand_more(runner, name, record_property):
    check(runner, name, range(50, 1050), record_property)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_hostile_input_made_by_hand(runner, name):
    case = CASES[name]
    outcome = runner.attempt(case.target, name)
    assert not outcome.failed, failures([outcome])
    assert outcome.kind in case.kinds
    words = case.words if outcome.kind == "refused" else ()
    assert all(word in outcome.words for word in words), outcome.words
