"""The worlds of synthetic seizures: who is in them, and what is known of them."""

import dataclasses

import numpy as np
import pytest

from eegkd.data.synthetic import WORLDS, make_recording, seizure


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("transfer", (120, 4, 10, 40, 30)), ("null", (40, 40, 6, 20, 60))],
)
def test_nobody_is_on_two_sides_and_names_sort_as_they_come(name, sizes):
    world = WORLDS[name]
    split = world.split
    train, val, test = (split[part] for part in ("train", "val", "test"))
    found = len(train), len(world.student_subjects), len(val), len(test)
    assert (*found, world.num_windows) == sizes
    assert (*train, *val, *test) == world.subjects
    assert len(set(world.subjects)) == len(world.subjects)
    assert sorted(world.subjects) == list(world.subjects)
    assert set(world.student_subjects) <= set(train)
    assert len(world.types) == (1 if name == "null" else 120)


def test_a_patient_depends_on_name_and_seed_alone():
    names = WORLDS["transfer"].subjects
    first, again = (make_recording("transfer", names[3], seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.signal, again.signal)
    assert first.signal.shape == (19, 30 * 200)
    for other in ((names[4], 1), (names[3], 2)):
        assert not np.array_equal(
            make_recording("transfer", other[0], seed=other[1]).signal, first.signal
        )
    seconds = {event.label: event.duration_s for event in first.events}
    assert seconds == {"focal": 12.0, "generalized": 12.0}


def test_the_posterior_is_that_of_a_gaussian_per_frequency():
    """Against the density with every covariance written out and inverted."""
    world = dataclasses.replace(
        WORLDS["transfer"], sites=("F7", "T8"), rates_hz=(4.5, 6.5)
    )
    rng = np.random.default_rng(0)
    windows = seizure.draw_windows(rng, np.array([0, 1, 2, 1]), world.types[1])
    prior = np.array([0.6, 0.2, 0.2])
    x = np.fft.rfft(windows.astype(np.float64), norm="ortho") / np.sqrt(2)
    a = seizure._topographies()
    joint = np.zeros((3, len(world.types), 4))
    for y, z in np.ndindex(joint.shape[:2]):
        noise, power = seizure.spectra(y, world.types[z])
        for f in range(1, len(noise) - 1):
            s = noise[f] * np.eye(19) + (a * power[f]) @ a.T
            inside = np.einsum(
                "nc,cd,nd->n", x[..., f].conj(), np.linalg.inv(s), x[..., f]
            )
            joint[y, z] -= inside.real + np.linalg.slogdet(s)[1]
        joint[y, z] += np.log(prior[y])
    weights = np.exp(joint - joint.max(axis=(0, 1))).sum(axis=1).T
    want = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        seizure.posterior(world, windows, prior), want, rtol=1e-6, atol=1e-12
    )
