import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from eegkd.evaluate.calibration import (
    apply_temperature,
    brier,
    calibration_per_subject,
    calibration_scores,
    expected_calibration_error,
    fit_temperature,
    nll,
    reliability,
    to_logits,
)
from eegkd.evaluate.predictions import make_predictions, select
from tests.support.label_predictions import draw


def calibrated(n, k, seed, scale=1.0):
    """Draws labels from softmax(z), but reports softmax(scale * z)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k)) * 1.5
    p = softmax(z, axis=1)
    label = (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=k - 1)
    subject = np.arange(n) % 3
    return make_predictions(softmax(scale * z, axis=1), label, subject), scale * z


@pytest.mark.parametrize("k", [2, 5])
def test_temperature_recovers_a_scale_of_three(k):
    p, logits = calibrated(6000, k, 0, scale=3.0)
    assert fit_temperature(logits, p.label) == pytest.approx(3.0, rel=0.05)
    temperature = fit_temperature(to_logits(p), p.label)
    assert temperature == pytest.approx(3.0, rel=0.05)
    cooled = apply_temperature(p, temperature)
    before, after = calibration_scores(p), calibration_scores(cooled)
    assert all(after[name] < before[name] for name in before)
    assert after["ece"] < 0.03 < before["ece"]
    np.testing.assert_array_equal(cooled.prob.argmax(1), p.prob.argmax(1))


def test_temperature_ignores_unlabelled_rows():
    p, logits = calibrated(2000, 3, 1)
    label = np.where(np.arange(2000) < 500, -1, p.label)
    odd = np.where(label[:, None] < 0, 50.0 * np.eye(3)[0], logits)
    assert fit_temperature(odd, label) == pytest.approx(
        fit_temperature(logits[500:], label[500:])
    )
    with pytest.raises(ValueError, match="No labelled window"):
        fit_temperature(logits, np.full(2000, -1))
    with pytest.raises(ValueError, match="must be positive; got 0"):
        apply_temperature(p, 0.0)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 200), st.integers(2, 4), st.integers(0, 10**6))
def test_scores_match_a_naive_restatement(n, k, seed):
    p, _ = calibrated(n, k, seed, scale=2.0)
    top = p.prob.max(1).astype(float)
    right = p.prob.argmax(1) == p.label
    error = 0.0
    for i in range(15):
        own = (top > i / 15) & (top <= (i + 1) / 15)
        if own.any():
            error += own.mean() * abs(right[own].mean() - top[own].mean())
    assert expected_calibration_error(p) == pytest.approx(error, abs=1e-6)
    gold = np.eye(k)[p.label]
    assert brier(p) == pytest.approx(np.mean(((p.prob - gold) ** 2).sum(1)), abs=1e-6)
    want = np.mean([-np.log(row[y]) for row, y in zip(p.prob, p.label, strict=True)])
    assert nll(p) == pytest.approx(want, rel=1e-5)


def test_reliability_bins():
    prob = np.array([[0.5, 0.5], [0.9, 0.1], [0.0, 1.0], [0.45, 0.55], [0.3, 0.7]])
    p = make_predictions(prob, [0, 0, 0, 1, -1], ["1"] * 5)
    table = reliability(p, num_bins=10)
    assert table.count.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1]
    assert table.accuracy[[4, 5, 8, 9]].tolist() == [1, 1, 1, 0]
    assert np.isnan(table.confidence[0])
    mass = reliability(p, num_bins=2, equal_mass=True)
    assert mass.count.tolist() == [2, 2]
    np.testing.assert_allclose(mass.confidence, [0.525, 0.95], atol=1e-6)
    want = 0.5 * (1 - 0.525) + 0.5 * abs(0.5 - 0.95)
    got = expected_calibration_error(p, num_bins=2, equal_mass=True)
    assert got == pytest.approx(want, abs=1e-6)


def test_scores_a_subject():
    p, _ = calibrated(90, 2, 4)
    found = calibration_per_subject(p)
    assert set(found) == {"0", "1", "2"}
    assert found["1"] == calibration_scores(select(p, p.subject == "1"))


def test_several_labels_have_one_temperature_over_all_of_them():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3000, 3)) * 1.5 - 1
    label = (rng.random(z.shape) < expit(z)).astype(int)
    label[:, 2] = np.where(rng.random(3000) < 0.5, -1, label[:, 2])
    p = make_predictions(expit(3 * z), label, np.arange(3000) % 3)
    assert fit_temperature(3 * z, p.label) == pytest.approx(3.0, rel=0.05)
    temperature = fit_temperature(to_logits(p), p.label)
    assert temperature == pytest.approx(3.0, rel=0.05)
    cooled = apply_temperature(p, temperature)
    np.testing.assert_allclose(cooled.prob, expit(3 * z / temperature), atol=1e-4)
    np.testing.assert_array_equal(cooled.prob >= 0.5, p.prob >= 0.5)
    before, after = calibration_scores(p), calibration_scores(cooled)
    assert all(after[name] < before[name] for name in before)
    assert after["ece"] < 0.03 < before["ece"]
    # What was not asked has no part in any of it.
    odd = p._replace(prob=np.where(label < 0, np.float32(0.5), p.prob))
    assert calibration_scores(odd) == before
    assert fit_temperature(to_logits(odd), label) == pytest.approx(temperature)


def test_scores_of_several_labels_match_a_naive_restatement():
    p = draw(3, n=200)
    known = p.label >= 0
    gold, yes = p.label[known], p.prob[known].astype(float)
    error = 0.0
    for i in range(15):
        own = (yes > i / 15) & (yes <= (i + 1) / 15)
        if own.any():
            error += own.mean() * abs(gold[own].mean() - yes[own].mean())
    assert expected_calibration_error(p) == pytest.approx(error, abs=1e-6)
    assert brier(p) == pytest.approx(np.mean((yes - gold) ** 2))
    want = -np.mean(np.where(gold == 1, np.log(yes), np.log(1 - yes)))
    assert nll(p) == pytest.approx(want)
    assert reliability(p).count.sum() == known.sum()
