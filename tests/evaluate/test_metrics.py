import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegkd.errors import InputError
from eegkd.evaluate.metrics import (
    METRICS,
    OF_CLASSES,
    confusion_matrix,
    per_class_recall,
    per_subject,
    score,
)
from eegkd.evaluate.predictions import (
    concatenate,
    load_predictions,
    make_predictions,
    save_predictions,
    select,
    with_units,
)


def predictions_of(seed, n=60, k=2, subjects=4):
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet(np.ones(k), n)
    label = rng.integers(0, k, n)
    return make_predictions(prob, label, rng.integers(0, subjects, n).astype(str))


def from_counts(counts):
    gold, decided = np.nonzero(counts)
    times = counts[gold, decided]
    gold, decided = np.repeat(gold, times), np.repeat(decided, times)
    return make_predictions(np.eye(len(counts))[decided], gold, np.full(len(gold), "1"))


def test_published_kappa_of_balanced_five_classes():
    counts = np.diag([61, 61, 61, 61, 60])  # 75 a class, 71 mistakes
    for i, misses in enumerate([14, 14, 14, 14, 15]):
        counts[i, (i + 1) % 5] = misses
    # Kappa needs only that every class has 75 labels: chance agreement is then 1/5.
    found = score(from_counts(counts), ["accuracy", "kappa"])
    assert found["accuracy"] == pytest.approx(304 / 375)
    assert found["kappa"] == pytest.approx(0.7633, abs=2e-4)


def naive(p):
    """Restates the metrics from counts and pairs, in float64."""
    k = p.prob.shape[1]
    decided = p.prob.argmax(1)
    counts = np.array(
        [[np.sum((p.label == i) & (decided == j)) for j in range(k)] for i in range(k)],
        float,
    )
    n = counts.sum()
    present = [i for i in range(k) if counts[i].sum()]
    recall = [counts[i, i] / counts[i].sum() for i in present]
    precision = [counts[i, i] / max(counts[:, i].sum(), 1) for i in present]
    f1 = [2 * counts[i, i] / (counts[i].sum() + counts[:, i].sum()) for i in present]
    weight = [counts[i].sum() / n for i in present]
    chance = (counts.sum(0) * counts.sum(1)).sum() / n**2
    areas = []
    for i in [1] if k == 2 else present:
        pos, neg = p.prob[p.label == i, i], p.prob[p.label != i, i]
        if len(pos) and len(neg):
            gap = pos[:, None] - neg[None]
            areas.append(np.mean((gap > 0) + 0.5 * (gap == 0)))
    defined = chance < 1
    return {
        "accuracy": np.trace(counts) / n,
        "balanced_accuracy": np.mean(recall),
        "macro_recall": np.mean(recall),
        "macro_precision": np.mean(precision),
        "macro_f1": np.mean(f1),
        "weighted_f1": np.dot(weight, f1),
        "kappa": (np.trace(counts) / n - chance) / (1 - chance) if defined else np.nan,
        "auroc": np.mean(areas) if areas else np.nan,
    }


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 5))
def test_metrics_match_a_naive_restatement(seed, n, k):
    p = predictions_of(seed, n, k)
    want = naive(p)
    got = score(p, want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-6, err_msg=name)


def test_areas_under_precision_and_recall_differ_by_name():
    positive = np.array([0.9, 0.8, 0.7, 0.6])
    prob = np.stack([1 - positive, positive], axis=1)
    p = make_predictions(prob, [1, 0, 1, 0], ["1"] * 4)
    # precision 1, 1/2, 2/3, 1/2 at recall 1/2, 1/2, 1, 1
    got = score(p, ["auc_pr_step", "auc_pr_trapezoid"])
    assert got["auc_pr_step"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert got["auc_pr_trapezoid"] == pytest.approx(0.5 + 0.5 * (1 / 2 + 2 / 3) / 2)


def test_sensitivity_at_a_fixed_specificity():
    positive = np.array([0.1, 0.2, 0.3, 0.9, 0.25, 0.95, 0.05])
    p = make_predictions(
        np.stack([1 - positive, positive], 1), [0, 0, 0, 0, 1, 1, 1], ["1"] * 7
    )
    got = METRICS["sensitivity_at_specificity"]
    assert got(p) == pytest.approx(1 / 3)
    assert got(p, specificity=0.75) == pytest.approx(1 / 3)
    assert got(p, specificity=0.5) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="two classes; got 3"):
        got(predictions_of(0, k=3))


def test_a_subject_with_one_class_is_nan_without_a_warning():
    prob = np.array([[0.2, 0.8], [0.6, 0.4], [0.7, 0.3], [0.1, 0.9], [0.5, 0.5]])
    p = make_predictions(prob, [1, 0, 0, 0, -1], ["a", "a", "b", "b", "c"])
    area = per_subject(p, "auroc")
    assert area["a"] == 1.0
    assert np.isnan(area["b"])
    assert np.isnan(area["c"])
    right = per_subject(p, "accuracy")
    assert (right["a"], right["b"]) == (1.0, 0.5)
    assert np.isnan(right["c"])
    for name in OF_CLASSES:
        assert set(per_subject(p, name)) == {"a", "b", "c"}


def test_unlabelled_windows_are_not_scored():
    p = predictions_of(1)
    blank = p._replace(label=np.full_like(p.label, -1))
    assert score(concatenate([p, blank]), OF_CLASSES) == score(p, OF_CLASSES)
    with pytest.raises(ValueError, match="No labelled window"):
        score(blank, ["accuracy"])


def test_confusion_matrix_keeps_absent_classes():
    p = make_predictions(np.eye(3)[[0, 2, 2, 1]], [0, 0, 2, 2], ["1"] * 4)
    assert confusion_matrix(p).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 1]]
    np.testing.assert_allclose(per_class_recall(p), [0.5, np.nan, 0.5])


def test_predictions_survive_a_file(tmp_path):
    p = predictions_of(2)
    save_predictions(tmp_path / "p.npz", p)
    back = load_predictions(tmp_path / "p.npz")
    for name, a, b in zip(p._fields, p, back, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype
    assert [f.name for f in tmp_path.iterdir()] == ["p.npz"]
    np.savez(tmp_path / "other.npz", prob=p.prob)
    with pytest.raises(InputError, match="has no label, subject"):
        load_predictions(tmp_path / "other.npz")
    whole = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("cut.npz", "absent.npz"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            load_predictions(tmp_path / name)


@pytest.mark.parametrize(
    "changes",
    [
        {"prob": np.full((4, 2), np.nan)},
        {"prob": np.linspace(-2, 3, 8).reshape(4, 2)},
        {"label": np.array([0, 1, 2, 0])},
        {"subject": np.array(["a", "b"])},
        {"start_s": np.array(3.0)},
        {"start_s": np.full(4, np.inf, np.float32)},
        {"subject": np.arange(4)},
        {"prob": np.full((4, 2), 0.5 + 1j)},
        {"window_id": np.arange(4.0)},
    ],
)
def test_a_file_of_what_are_no_predictions_is_refused(tmp_path, changes):
    p = predictions_of(2, n=4)
    np.savez(tmp_path / "p.npz", **(p._asdict() | changes))
    with pytest.raises(InputError, match=r"p\.npz is damaged: .*evaluation again"):
        load_predictions(tmp_path / "p.npz")


def test_rows_and_units():
    p = predictions_of(3, n=6)
    assert select(p, p.window_id > 3).window_id.tolist() == [4, 5]
    units = with_units(p, np.repeat([0, 1], 3))
    assert units.subject.tolist() == ["0"] * 3 + ["1"] * 3
    with pytest.raises(ValueError, match="2 units, 6 windows"):
        with_units(p, np.arange(2))


@pytest.mark.parametrize(
    ("prob", "label", "message"),
    [
        ([[0.5, np.nan]], [0], "first is row 0"),
        ([[1.5, -0.5]], [0], r"must lie in \[0, 1\]"),
        ([[0.5, 0.5]], [2], "below k=2"),
        ([[0.5, 0.5]], [0, 1], "rows correspond"),
    ],
)
def test_bad_predictions_are_refused(prob, label, message):
    with pytest.raises(ValueError, match=message):
        make_predictions(np.array(prob), np.array(label), np.full(len(label), "1"))
    with pytest.raises(ValueError, match="No metric 'acc'"):
        score(predictions_of(0), ["acc"])
