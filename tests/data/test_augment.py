import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegkd.data.batches.augment import AugmentConfig, augment
from eegkd.data.batches.loader import BatchPlan, make_loader
from eegkd.errors import InputError
from tests.support.stores import toy_store

ALL = AugmentConfig(scale=0.3, shift=0.2, channel_dropout=0.4, noise=0.5)


def signals(num=6, c=4, t=50, seed=0):
    return np.random.default_rng(seed).normal(size=(num, c, t)).astype(np.float32)


def test_nothing_is_changed_by_default():
    x = signals()
    assert augment(x, np.arange(6), 3, AugmentConfig()) is x
    assert AugmentConfig().views == 1


@given(
    ids=st.lists(st.integers(0, 2**40), min_size=1, max_size=6, unique=True),
    view=st.integers(0, 9),
    data=st.data(),
)
@settings(max_examples=30, deadline=None)
def test_a_view_depends_on_the_window_alone_and_not_on_its_batch(ids, view, data):
    x = signals(len(ids))
    order = data.draw(st.permutations(range(len(ids))))
    whole = augment(x, np.array(ids), view, ALL)
    moved = augment(x[order], np.array(ids)[order], view, ALL)
    np.testing.assert_array_equal(moved, whole[order])
    for i, window in enumerate(ids):
        alone = augment(x[i : i + 1], np.array([window]), np.array([view]), ALL)
        np.testing.assert_array_equal(alone[0], whole[i])


def test_views_windows_and_seeds_differ():
    x = np.repeat(signals(1), 2, axis=0)
    a, b = augment(x, np.array([0, 1]), 0, ALL)
    c = augment(x, np.array([0, 1]), 1, ALL)[0]
    d = augment(x, np.array([0, 1]), 0, dataclasses.replace(ALL, seed=1))[0]
    for other in (b, c, d):
        assert np.abs(a - other).mean() > 0.1
    assert a.dtype == np.float32


def test_scale_is_one_factor_a_window():
    x = signals(200)
    got = augment(x, np.arange(200), 0, AugmentConfig(scale=0.3))
    factor = got[:, 0, 0] / x[:, 0, 0]
    np.testing.assert_allclose(got, factor[:, None, None] * x, rtol=1e-5)
    assert 0.7 <= factor.min() < 0.75
    assert 1.25 < factor.max() <= 1.3


def test_shift_moves_all_channels_and_mirrors_the_end():
    x = np.broadcast_to(np.arange(50, dtype=np.float32), (40, 3, 50))
    got = augment(x, np.arange(40), 0, AugmentConfig(shift=0.2))
    seen = set()
    for window in got:
        assert np.array_equal(window[0], window[1])
        shift = 25 - int(window[0, 25])
        seen.add(shift)
        want = np.abs(np.arange(50) - shift)
        want = np.where(want > 49, 98 - want, want)
        np.testing.assert_array_equal(window[0], want)
    assert min(seen) <= -8
    assert max(seen) >= 8
    assert max(map(abs, seen)) <= 10


def test_channel_dropout_has_its_rate_and_leaves_one():
    x = signals(2000, c=8, t=4)
    got = augment(x, np.arange(2000), 0, AugmentConfig(channel_dropout=0.5))
    zero = (got == 0).all(axis=2)
    # One of eight is kept in any case: 0.5 * 7 / 8 = 0.4375; 5 standard errors.
    assert abs(zero.mean() - 0.4375) < 5 * np.sqrt(0.25 / zero.size)
    np.testing.assert_array_equal(got[~zero], x[~zero])
    most = augment(x, np.arange(2000), 0, AugmentConfig(channel_dropout=0.99))
    assert (most != 0).any(axis=(1, 2)).all()


def test_noise_is_a_share_of_each_channels_spread():
    x = signals(500) * np.array([1, 10, 100, 0], np.float32)[:, None]
    added = augment(x, np.arange(500), 0, AugmentConfig(noise=0.5)) - x
    ratio = added.std(axis=(0, 2))[:3] / x.std(axis=2).mean(axis=0)[:3]
    np.testing.assert_allclose(ratio, 0.5, rtol=0.03)
    assert (added[:, 3] == 0).all()


def test_turning_noise_on_leaves_the_other_draws():
    x = signals()
    one = AugmentConfig(channel_dropout=0.4)
    more = dataclasses.replace(one, noise=0.1)
    a, b = (augment(x, np.arange(6), 0, c) for c in (one, more))
    np.testing.assert_array_equal((a == 0).all(axis=2), (b == 0).all(axis=2))


@pytest.mark.parametrize(
    "options",
    [{"scale": 1.0}, {"shift": -0.1}, {"noise": -1}, {"num_views": -1}, {"seed": -2}],
)
def test_what_is_out_of_range_is_refused(options):
    with pytest.raises(InputError, match=f"--augment.{next(iter(options))}"):
        AugmentConfig(**options)


@pytest.mark.parametrize(("num_views", "repeats"), [(2, True), (0, False)])
def test_an_epoch_shows_its_view(num_views, repeats):
    store = toy_store()
    config = dataclasses.replace(ALL, num_views=num_views)
    loader = make_loader(
        store,
        store.rows(),
        batch_size=50,
        seed=0,
        num_epochs=3,
        plan=BatchPlan(augment=config),
    )
    epochs = [{}, {}, {}]
    for i, batch in enumerate(loader):
        row = batch["window_id"]
        want = augment(store.signal[row], row, config.view(i // 4), config)
        np.testing.assert_array_equal(batch["signal"], want)
        epochs[i // 4] |= dict(zip(row.tolist(), batch["signal"], strict=True))
    same = [np.array_equal(epochs[0][i], epochs[2][i]) for i in range(200)]
    assert all(same) == repeats
    assert not any(np.array_equal(epochs[0][i], epochs[1][i]) for i in range(200))
