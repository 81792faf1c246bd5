"""Agreement of a model with its teacher."""

import numpy as np
import pytest

from eegkd.evaluate.assays.agreement import agreement, agreement_rows
from eegkd.evaluate.predictions import make_predictions
from tests.support.label_predictions import draw


def predictions(prob, first=0):
    prob = np.asarray(prob, np.float32)
    n = len(prob)
    ids = np.arange(first, first + n)
    return make_predictions(prob, np.full(n, -1), np.full(n, "s"), window_id=ids)


def test_matches_a_plain_count():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(3), (2, 50))
    found = agreement(predictions(q), predictions(p))
    same = [q[i].argmax() == p[i].argmax() for i in range(50)]
    kl = [sum(p[i, k] * np.log(p[i, k] / q[i, k]) for k in range(3)) for i in range(50)]
    assert found.top1 == pytest.approx(np.mean(same))
    assert found.kl == pytest.approx(np.mean(kl), rel=1e-4)
    for k in range(3):
        mine = [s for s, row in zip(same, p, strict=True) if row.argmax() == k]
        assert found.by_class[k] == pytest.approx(np.mean(mine))


def test_equal_models_agree_and_certain_ones_stay_finite():
    p = predictions([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
    found = agreement(p, p)
    assert (found.top1, found.kl, found.by_class) == (1, pytest.approx(0), (1, 1))
    opposite = agreement(predictions([[0.0, 1.0], [1.0, 0.0], [0.7, 0.3]]), p)
    assert opposite.top1 == 0
    assert np.isfinite(opposite.kl)


def test_rows_average_seeds_and_join_folds():
    fold0, fold1 = [[0.9, 0.1], [0.8, 0.2]], [[0.7, 0.3]]
    turned = [[0.1, 0.9], [0.2, 0.8]]
    teacher = {0: [predictions(fold0), predictions(fold1, 2)]}
    student = {
        0: [predictions(fold0), predictions(fold1, 2)],
        1: [predictions(turned), predictions(fold1, 2)],
    }
    rows = agreement_rows({"teacher": teacher, "student": student})
    assert list(rows) == ["student"]
    assert rows["student"]["top1"] == pytest.approx((1 + 1 / 3) / 2)
    assert rows["student"]["by_class"] == [pytest.approx(2 / 3), None]
    assert agreement_rows({"student": student}) == {}


def test_other_windows_are_refused():
    with pytest.raises(ValueError, match="different windows"):
        agreement(predictions([[0.5, 0.5]]), predictions([[0.5, 0.5]], first=1))


def test_several_labels_agree_decision_by_decision():
    teacher = draw(0)
    model = draw(1, teacher=teacher)
    found = agreement(model, teacher)
    p, q = teacher.prob.astype(float), model.prob.astype(float)
    same = (p >= 0.5) == (q >= 0.5)
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert found.top1 == pytest.approx(np.mean(same))
    np.testing.assert_allclose(found.by_class, same.mean(axis=0))
    assert found.kl == pytest.approx(kl.mean(), rel=1e-4)
    assert agreement(teacher, teacher)[:2] == (1, pytest.approx(0))
    certain = teacher._replace(prob=np.round(teacher.prob))
    assert np.isfinite(agreement(certain, teacher).kl)
