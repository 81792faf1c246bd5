"""The layered world: its posterior by brute force, its patients, its corpus."""

import itertools

import numpy as np
import pytest

from eegkd.data import get_corpus
from eegkd.data.synthetic import WORLDS, layered, make_recording


def log_density(window, ratio):
    """Of independent complex Gaussians, one per channel, patch and frequency."""
    x = np.fft.rfft(window.reshape(4, 8, 200), norm="ortho")[..., 1:-1] / np.sqrt(2)
    freqs = np.fft.rfftfreq(200, 1 / 200)
    noise = 100 * (4 + 60 / (1 + (freqs / 2) ** 1.5))
    variance = (noise * ratio)[..., 1:-1]
    return (-(np.abs(x) ** 2) / variance - np.log(variance)).sum()


def bump(centre, height):
    freqs = np.fft.rfftfreq(200, 1 / 200)
    near = np.abs(freqs - centre) <= 2.5
    return height * near * np.exp(-2 * (freqs - centre) ** 2)


def brute_force(window, world, steady, burst):
    """Sums densities over every patient and every way that bursts may begin."""
    joint = []
    for centre, cycle in zip((7.0, 14.0, 10.5, 10.5), (4, 4, 8, 2), strict=True):
        logs = []
        for (electrode, offset, side), start in itertools.product(
            world.types, range(cycle)
        ):
            ratio = np.ones((4, 8, 101))
            ratio[("F3", "P3", "F4", "P4").index(electrode)] += bump(
                centre + offset, steady
            )
            on = np.array([(n - start) % cycle < cycle / 2 for n in range(8)])
            first = 2 * (side == "right")
            ratio[first : first + 2] += on[:, None] * bump(20.0, burst)
            logs.append(log_density(window, ratio))
        joint.append(np.logaddexp.reduce(logs) - np.log(len(logs)))
    joint = np.exp(np.array(joint) - max(joint))
    return joint / joint.sum()


def test_posterior_is_that_of_brute_force(monkeypatch):
    # So weak that no class is certain.
    monkeypatch.setattr(layered, "STEADY_RATIO", 1.0)
    monkeypatch.setattr(layered, "BURST_RATIO", 1.0)
    world = WORLDS["layered"]
    rng = np.random.default_rng(0)
    windows = np.stack(
        [layered.draw_window(rng, k, world.types[5 * k]) for k in (0, 1, 2, 3)]
    )
    found = layered.posterior(world, windows)
    want = [brute_force(w, world, 1.0, 1.0) for w in windows.astype(np.float64)]
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-9)
    assert found.max() < 0.99


def test_posterior_is_calibrated(monkeypatch):
    monkeypatch.setattr(layered, "STEADY_RATIO", 1.0)
    monkeypatch.setattr(layered, "BURST_RATIO", 2.0)
    world = WORLDS["layered_null"]
    rng = np.random.default_rng(1)
    label = np.arange(400) % 4
    windows = [layered.draw_window(rng, k, world.types[0]) for k in label]
    prob = layered.posterior(world, np.stack(windows))
    hit = prob.argmax(1) == label
    # The mean of what it says is what comes true, up to three standard errors.
    error = 3 * np.sqrt((prob.max(1) * (1 - prob.max(1))).sum()) / len(label)
    assert abs(hit.mean() - prob.max(1).mean()) < error
    assert 0.3 < hit.mean() < 0.95


def test_no_mean_power_tells_slow_from_fast():
    world = WORLDS["layered_null"]
    rng = np.random.default_rng(0)
    power = []
    for label in (2, 3):
        windows = [layered.draw_window(rng, label, world.types[0]) for _ in range(200)]
        x = np.abs(np.fft.rfft(np.reshape(windows, (200, 4, 8, 200)))) ** 2
        power.append(x[..., 18:23].sum((2, 3)))
    slow, fast = power
    spread = np.hypot(slow.std(0), fast.std(0)) / np.sqrt(200)
    assert np.all(np.abs(slow.mean(0) - fast.mean(0)) < 4 * spread)


def test_patients_are_drawn_by_name_and_seed():
    first, again = (make_recording("layered", "03", seed=2) for _ in range(2))
    np.testing.assert_array_equal(first.signal, again.signal)
    assert first.events == again.events
    assert first.duration_s == 48 * 8
    for other in (("04", 2), ("03", 3)):
        changed = make_recording("layered", other[0], seed=other[1])
        assert np.abs(changed.signal - first.signal).max() > 1
    counts = np.unique([event.label for event in first.events], return_counts=True)[1]
    assert counts.tolist() == [12] * 4
    assert 20 < first.signal.std() < 50


@pytest.mark.parametrize(("world", "labelled"), [("layered", 4), ("layered_null", 48)])
def test_the_student_has_labels_of_few_or_of_all(world, labelled):
    corpus = get_corpus("synthetic", world=world, seed=0)
    sources = corpus.list_sources(None)
    assert (len(sources), corpus.background) == (80, None)
    assert sources[0].path.name == "layered.py"
    split = corpus.fixed_split(())
    assert [len(split[part]) for part in ("train", "val", "test")] == [48, 8, 24]
    assert corpus.student_subjects == split["train"][:labelled]
    recording = corpus.read(sources[-1])
    assert recording.channels == corpus.defaults["channels"]
    assert {event.label for event in recording.events} == set(corpus.classes)
    assert len(WORLDS[world].types) == (1 if labelled == 48 else 16)


def test_a_window_of_another_size_is_refused():
    with pytest.raises(ValueError, match="4 x 1600 samples; got 6 x 1600"):
        layered.posterior(WORLDS["layered"], np.zeros((1, 6, 1600), np.float32))
