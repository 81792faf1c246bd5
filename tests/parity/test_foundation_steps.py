"""The steps that the benchmark of foundation models times do what they say."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from experiments.benchmarks import foundation  # noqa: E402
from experiments.benchmarks.foundation import CASES, WAYS  # noqa: E402
from tests.support.braindecode_models import braindecode_module  # noqa: E402

pytestmark = pytest.mark.parity
CASE = dataclasses.replace(CASES["quick"], batch=4)


@pytest.mark.parametrize("implementation", foundation.IMPLEMENTATIONS)
@pytest.mark.parametrize("way", ["CBraMod, no dropout", "EEGNet, online"])
def test_a_step_learns(way, implementation):
    braindecode_module("cbramod")
    step, _ = foundation.make_step(CASE, WAYS[way], implementation)
    losses = [step() for _ in range(30)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_both_implementations_are_of_one_size():
    braindecode_module("cbramod")
    import jax

    from experiments.benchmarks.torch_foundation import make_cbramod

    sizes = (CASE.n_chans, 200 * CASE.seconds, CASE.num_classes)
    model = make_cbramod(*sizes, CASE.depth, 0.1)
    stage = foundation.make_system(CASE, WAYS["2 layers, online"]).stages[0]
    batch = foundation.make_batch(CASE)
    ours = jax.eval_shape(lambda key: stage.init(key, batch, {}), jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(ours.params))
    assert count == sum(p.numel() for p in model.parameters())
    rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    rates |= {
        m.dropout for m in model.modules() if isinstance(m, torch.nn.MultiheadAttention)
    }
    assert rates == {0.1}


def test_a_ratio_is_the_median_of_the_turns():
    way = WAYS["EEGNet, cached"]
    times = {
        (way, "torch"): [(2.0, 1.0), (6.0, 2.0), (9.0, 3.0)],
        (way, "eegkd"): [(1.0, 1.0), (2.0, 1.0), (1.0, 1.0)],
    }
    rows = {
        (row["implementation"], row["metric"]): row["value"]
        for row in foundation.summarise(way, times)
    }
    assert rows["torch / eegkd", "speedup"] == 3
    assert rows["torch / eegkd", "cpu_speedup"] == 2
    assert rows["torch", "step_ms"] == 6000
    assert rows["eegkd", "step_ms_best"] == 1000
