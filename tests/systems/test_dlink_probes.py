"""What is watched of DLink: weights, ranks and band errors against plain NumPy."""

import dataclasses

import numpy as np
import pytest

from eegkd.evaluate.controls import without_teacher
from eegkd.models import CBraModConfig, DlinkStudentConfig
from eegkd.systems import SignalConfig
from eegkd.systems.dlink import make_system
from eegkd.systems.dlink.config import DlinkConfig, RouterConfig, TeacherConfig
from eegkd.systems.dlink.probes import band_error, fidelity, ranks, routing

RNG = np.random.default_rng(0)
CONFIG = DlinkConfig(
    signal=SignalConfig(
        n_chans=3,
        n_times=400,
        rate=200.0,
        classes=("a", "b", "c"),
        channels=("C3", "Cz", "C4"),
        units=("uV",) * 3,
    ),
    teacher=TeacherConfig(
        head="average",
        cbramod=CBraModConfig(filters=5, depth=1, num_heads=2, ffn_dim=8),
    ),
    student=DlinkStudentConfig(mimic_hidden=4, compress_width=8, norm_groups=2),
)


def names(probes, when=None):
    return [p.term.name for p in probes if when is None or p.when == when]


def test_weights_their_entropy_and_their_variance():
    alpha = RNG.dirichlet(np.ones(3), size=5)
    found = {
        probe.term.name: np.asarray(probe.term.fn(alpha))
        for probe in routing(CONFIG, ("embed", "block_0", "block_1"))
    }
    np.testing.assert_allclose(found["alpha_block_0"], alpha[:, 1])
    entropy = -(alpha * np.log(alpha)).sum(1)
    np.testing.assert_allclose(found["routing_entropy"], entropy, rtol=1e-5)
    total = found["routing_variance"].mean()
    np.testing.assert_allclose(total, alpha.var(axis=0).sum(), rtol=1e-5)
    same = np.tile(alpha[:1], (4, 1))
    assert routing(CONFIG, ("a", "b", "c"))[-1].term.fn(same).max() < 1e-12


@pytest.mark.parametrize(
    "router", [{"mode": "mean"}, {"mode": "last"}, {"log_weights": False}]
)
def test_weights_that_are_fixed_are_not_watched(router):
    config = dataclasses.replace(CONFIG, router=RouterConfig(**router))
    assert routing(config, ("embed",)) == ()


def test_band_error_matches_numpy():
    grid, d = (3, 4), 40
    student, teacher = RNG.normal(size=(2, 2, 12, d))

    def power(x, low, high):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        spectrum = np.abs(np.fft.rfft(x.reshape(2, 3, 4 * d))) ** 2
        freqs = np.arange(spectrum.shape[-1]) / 4  # 40 features are a second
        return spectrum[..., (freqs >= low) & (freqs < high)].sum(-1)

    p_s, p_t = (power(x, 4, 8) for x in (student, teacher))
    want = np.mean(np.abs(p_s - p_t) / p_t, axis=-1)
    found = band_error(student, teacher, grid=grid, band=(4.0, 8.0))
    np.testing.assert_allclose(found, want, rtol=1e-5)
    # Tokens are standardised: size and offset of a token are no errors.
    same = band_error(3 * teacher + 1, teacher, grid=grid, band=(4.0, 8.0))
    np.testing.assert_allclose(same, 0, atol=1e-4)


def test_bands_above_half_the_width_are_left_out():
    assert names(fidelity((3, 4), 80))[-2:] == ["band_error_gamma", "rank_target"]
    assert names(fidelity((3, 4), 40))[-2:] == ["band_error_beta", "rank_target"]


def test_a_rank_is_of_all_windows_together():
    (tokens, _) = ranks()
    one = np.tile(RNG.normal(size=(1, 1, 6)), (4, 3, 1))
    scale = np.arange(1, 5)[:, None, None]
    np.testing.assert_allclose(tokens.term.fn(scale * one), 1, rtol=1e-3)
    many = tokens.term.fn(RNG.normal(size=(50, 4, 6)))
    assert many.shape == (50,)
    assert 5.5 < many[0] <= 6.001


def test_what_reads_the_teacher_is_not_watched_without_one():
    system = make_system(CONFIG)
    stage = system.stages[-1]
    watched = ["alpha_embed", "alpha_block_0", "routing_entropy", "routing_variance"]
    assert names(stage.probes, "eval") == watched
    own = ["rank_tokens", "rank_compressed"]
    assert names(stage.probes, "end")[:2] == own
    assert "band_error_alpha" in names(stage.probes, "end")
    alone = without_teacher(system).stages[-1]
    assert names(alone.probes) == own
