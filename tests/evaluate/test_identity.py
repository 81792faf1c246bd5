"""The subject-identity probe."""

import numpy as np
import pytest

from eegkd.evaluate.assays.identity import identity_probe, remove_subject_axes

NUM_SUBJECTS, NUM_WINDOWS, WIDTH = 6, 40, 16


def embeddings(strength: float, seed: int = 0):
    """Draws noise with a planted signature a subject."""
    rng = np.random.default_rng(seed)
    subject = np.repeat([f"s{i}" for i in range(NUM_SUBJECTS)], NUM_WINDOWS)
    x = rng.normal(size=(len(subject), WIDTH))
    signature = rng.normal(size=(NUM_SUBJECTS, WIDTH))
    x += strength * np.repeat(signature, NUM_WINDOWS, axis=0)
    start = np.tile(np.arange(NUM_WINDOWS, dtype=float), NUM_SUBJECTS)
    return x.astype(np.float32), subject, start


def test_finds_a_planted_identity_and_nothing_in_noise():
    x, subject, start = embeddings(3.0)
    found = identity_probe(x, subject, subject, start)
    assert found is not None
    assert found.accuracy > 0.9
    assert found.chance == pytest.approx(1 / NUM_SUBJECTS)
    assert found.n_subjects == NUM_SUBJECTS
    noise, subject, start = embeddings(0.0)
    none = identity_probe(noise, subject, subject, start)
    assert none is not None
    assert none.accuracy < 0.35


def test_the_planted_signature_can_be_removed():
    x, subject, start = embeddings(3.0)
    clean = remove_subject_axes(x, subject)
    found = identity_probe(clean, subject, subject, start)
    assert found is not None
    assert found.accuracy < 0.35
    means = [clean[subject == name].mean(axis=0) for name in np.unique(subject)]
    np.testing.assert_allclose(means, np.broadcast_to(means[0], (6, WIDTH)), atol=1e-4)


def test_what_all_share_stays():
    x, subject, _ = embeddings(3.0)
    once = remove_subject_axes(x, subject)
    np.testing.assert_allclose(remove_subject_axes(once, subject), once, atol=1e-3)


def test_halves_are_those_of_each_recording():
    """A probe that saw only the first recording could not know the second."""
    rng = np.random.default_rng(0)
    subject = np.repeat(["a", "b"], 40)
    recording = np.char.add(subject, np.tile(np.repeat(["1", "2"], 20), 2))
    start = np.tile(np.arange(20.0), 4)
    sign = np.where(subject == "a", 1, -1) * np.where(
        np.tile(np.repeat([0, 1], 20), 2), -1, 1
    )
    side = np.tile(np.repeat([0.0, 10.0], 20), 2)
    x = np.stack([sign * 5.0, side, sign * side], axis=1) + rng.normal(size=(80, 3))
    found = identity_probe(x, subject, recording, start)
    assert found is not None
    assert found.accuracy > 0.95


def test_too_few_people_or_windows_give_nothing():
    x, subject, start = embeddings(1.0)
    one = subject == "s0"
    assert identity_probe(x[one], subject[one], subject[one], start[one]) is None
    few = start < 3
    assert identity_probe(x[few], subject[few], subject[few], start[few]) is None
