"""Metrics of several labels per window, against scikit-learn and plain loops."""

import numpy as np
import pytest
from sklearn import metrics as sk

from eegkd.errors import InputError
from eegkd.evaluate import multilabel
from eegkd.evaluate.metrics import METRICS, OF_CLASSES, OF_LABELS, per_subject, score
from eegkd.evaluate.predictions import make_predictions, select
from tests.support.label_predictions import draw


def cells(p):
    known = p.label >= 0
    return p.label[known] == 1, p.prob[known]


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("seed", range(3))
def test_ranks_agree_with_scikit_learn_class_by_class(seed, ties):
    p = draw(seed, ties=ties)
    pairs = {"auroc": sk.roc_auc_score, "ap": sk.average_precision_score}
    for name, fn in pairs.items():
        want = []
        for k in range(4):
            known = p.label[:, k] >= 0
            want.append(fn(p.label[known, k] == 1, p.prob[known, k]))
        own = getattr(multilabel, f"class_{name}")(p)
        np.testing.assert_allclose(own, want, rtol=1e-12)
        found = score(p, [f"macro_{name}", f"micro_{name}"])
        assert found[f"macro_{name}"] == pytest.approx(np.mean(want))
        assert found[f"micro_{name}"] == pytest.approx(fn(*cells(p)))


def test_decisions_agree_with_plain_counts():
    p = draw(1)
    gold, prob = cells(p)
    found = score(p, OF_LABELS)
    right = (prob >= 0.5) == gold
    assert found["negative_hamming"] == pytest.approx(right.mean() - 1)
    log_p = np.where(gold, np.log(prob.astype(float)), np.log(1 - prob.astype(float)))
    assert found["negative_bce"] == pytest.approx(log_p.mean())
    rows = [
        all(y < 0 or y == (q >= 0.5) for y, q in zip(*pair, strict=True))
        for pair in zip(p.label, p.prob, strict=True)
        if (pair[0] >= 0).any()
    ]
    assert found["exact_match"] == pytest.approx(np.mean(rows))
    whole = draw(1, unknown=0)
    decided, truth = whole.prob >= 0.5, whole.label == 1
    found = score(whole, ["macro_f1", "micro_f1"])
    assert found["macro_f1"] == pytest.approx(
        sk.f1_score(truth, decided, average="macro")
    )
    assert found["micro_f1"] == pytest.approx(
        sk.f1_score(truth, decided, average="micro")
    )
    np.testing.assert_array_equal(
        multilabel.cell_confusion(whole), sk.multilabel_confusion_matrix(truth, decided)
    )


def test_cells_that_were_not_asked_change_nothing():
    p = draw(2)
    odd = p._replace(prob=np.where(p.label < 0, 1 - p.prob, p.prob))
    assert score(odd, OF_LABELS) == score(p, OF_LABELS)
    np.testing.assert_array_equal(
        multilabel.fit_thresholds(odd), multilabel.fit_thresholds(p)
    )
    np.testing.assert_array_equal(
        multilabel.cell_confusion(odd), multilabel.cell_confusion(p)
    )
    blank = np.full((5, 4), -1)
    more = make_predictions(
        np.concatenate([p.prob, np.full((5, 4), 0.9)]),
        np.concatenate([p.label, blank]),
        np.concatenate([p.subject, np.full(5, "new")]),
    )
    assert score(more, OF_LABELS) == score(p, OF_LABELS)
    assert all(np.isnan(per_subject(more, name)["new"]) for name in OF_LABELS)


def test_a_class_of_one_value_is_left_out():
    p = draw(3, k=3, unknown=0)
    label = p.label.copy()
    label[:, 1] = 0
    one = p._replace(label=label)
    assert np.isnan(multilabel.class_auroc(one)[1])
    others = multilabel.class_auroc(p)[[0, 2]].mean()
    assert multilabel.macro_auroc(one) == pytest.approx(others)
    nothing = one._replace(label=np.zeros_like(label))
    found = score(nothing, OF_LABELS)
    undefined = {name for name, value in found.items() if np.isnan(value)}
    assert undefined == {
        *("macro_auroc", "macro_ap", "micro_auroc", "micro_ap"),
        *("macro_f1", "micro_f1"),
    }
    single = per_subject(select(p, np.array([0])), "macro_auroc")
    assert np.isnan(single[p.subject[0]])


def test_metrics_know_which_labels_they_judge():
    assert set(METRICS) == {*OF_CLASSES, *OF_LABELS}
    with pytest.raises(InputError, match="accuracy does not judge .* several labels"):
        score(draw(), ["accuracy"])
    classes = make_predictions(np.full((2, 2), 0.5), [0, 1], ["a", "b"])
    with pytest.raises(InputError, match="macro_auroc does not judge .* one class"):
        score(classes, ["macro_auroc"])


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_have_the_best_f1_of_all(seed):
    p = draw(seed, ties=seed == 2)
    thresholds = multilabel.fit_thresholds(p)

    def f1(k, threshold):
        known = p.label[:, k] >= 0
        gold, yes = p.label[known, k] == 1, p.prob[known, k] >= threshold
        return 2 * (gold & yes).sum() / (gold.sum() + yes.sum())

    for k, threshold in enumerate(thresholds):
        best = max(f1(k, x) for x in np.append(np.unique(p.prob[:, k]), 2.0))
        assert f1(k, threshold) == pytest.approx(best)
    flat = p._replace(label=np.where(np.arange(4) < 2, 0.0, p.label).astype(np.float32))
    np.testing.assert_array_equal(multilabel.fit_thresholds(flat)[:2], 0.5)


def test_moved_thresholds_decide_the_same():
    p = draw(4)
    thresholds = np.array([0.0, 0.3, 0.999, 1.0])
    thresholds[1] = p.prob[7, 1]
    moved = multilabel.at_thresholds(p, thresholds)
    np.testing.assert_array_equal(moved.prob >= 0.5, p.prob >= thresholds)
    for k in range(4):
        order = np.argsort(p.prob[:, k])
        assert np.all(np.diff(moved.prob[order, k]) >= 0)
    assert ((moved.prob >= 0) & (moved.prob <= 1)).all()


def test_a_bootstrap_of_a_model_against_itself_is_zero():
    p = draw(5, subjects=20)
    names, rng = np.unique(p.subject), np.random.default_rng(0)
    rows = [np.flatnonzero(p.subject == name) for name in names]
    for _ in range(20):
        drawn = np.concatenate([rows[i] for i in rng.integers(0, len(names), 20)])
        values = [score(select(p, drawn), OF_LABELS) for _ in range(2)]
        assert values[0] == values[1]
        assert np.isfinite(list(values[0].values())).all()
