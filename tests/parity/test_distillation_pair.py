import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from eegkd.models import ConformerConfig  # noqa: E402
from experiments.benchmarks import distillation  # noqa: E402
from experiments.benchmarks.torch_pair import Classifier, make_torch_step  # noqa: E402
from experiments.benchmarks.train_step import Case  # noqa: E402

pytestmark = pytest.mark.parity

CFG = ConformerConfig(
    n_chans=3, dim=16, depth=2, ffn_mult=1, num_heads=2, kernel=5, stem_kernels=(7, 3)
)
CASE = Case(name="quick", cfg=CFG, batch=4, n_times=64)
STUDENT = dataclasses.replace(CFG, depth=1)


def make_inputs():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(4, 3, 64)).astype(np.float32))
    return x, torch.tensor([0, 1, 0, 1])


def test_the_torch_pair_learns_online_and_cached():
    x, label = make_inputs()
    with torch.no_grad():
        logits, tokens = Classifier(CFG, 2).eval()(x)
    cached = {"logits": logits, "tokens": tokens}
    for given in ({"teacher": CFG}, {"teacher": None, "cached": cached}):
        step = make_torch_step(STUDENT, x=x, label=label, features=True, **given)
        losses = [step() for _ in range(30)]
        assert np.isfinite(losses).all()
        assert np.mean(losses[-5:]) < np.mean(losses[:5])


def fake_times():
    ways = {(way.name, way.runner): way for way in distillation.ways(CASE)}
    return {key: [1.0 + i, 2.0 + 2 * i] for i, key in enumerate(ways)}


def test_every_ratio_is_of_ways_that_were_timed():
    times = fake_times()
    found = list(distillation.comparisons(times))
    assert all(over in times and under in times for _, _, over, under in found)
    names = {(name, metric) for name, metric, *_ in found}
    assert ("student, logits cached", "over_student_alone") in names
    assert ("student, features cached", "speedup_over_online") in names
    assert ("teacher", "torch_over_eegkd") in names
    assert ("teacher (pmap)", "over_single") in names


def test_the_overhead_of_features_is_split():
    times = {
        ("student, logits cached", "single"): [1.0, 2.0, 3.0],
        ("student, features resident", "single"): [1.5, 2.5, 3.5],
        ("student, features cached", "single"): [1.7, 2.7, 3.7],
    }
    rows = {r["metric"]: r["value"] for r in distillation.overheads(CASE, times)}
    assert rows == pytest.approx({"loss_ms": 500, "gather_and_send_ms": 200})
    assert list(distillation.overheads(CASE, {})) == []


def test_caching_saves_at_most_the_teacher_s_operations():
    (row,) = distillation.bounds(dataclasses.replace(CASE, cfg=CFG))
    assert row["metric"] == "flops_ratio"
    assert 1.0 < row["value"] < 3.0
