import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.test_util import check_grads

from eegkd.losses import clip_loss, weighted_mean


def eager(fn):
    return lambda *arrays: fn(*map(jnp.asarray, arrays))


compiled = jax.jit(clip_loss)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def draw(b=8, d=5, k=3, seed=0, unlabelled=True):
    rng = np.random.default_rng(seed)
    eeg, text = unit(rng.normal(size=(2, b, d)))
    label = rng.integers(-1 if unlabelled else 0, k, b)
    return eeg, text, np.float64(7.0), label


def oracle(eeg, text, scale, label, positives="multi"):
    """One example, one column at a time, in float64."""
    values = np.zeros(len(label))
    rows = [i for i in range(len(label)) if label[i] >= 0]
    for i in rows:
        same = [j for j in rows if label[j] == label[i]]
        same = same if positives == "multi" else [i]
        for x, y in ((eeg, text), (text, eeg)):
            logits = {j: scale * x[i] @ y[j] for j in rows}
            log_sum = np.log(sum(np.exp(z) for z in logits.values()))
            values[i] -= 0.5 * np.mean([logits[j] - log_sum for j in same])
    return values


@pytest.mark.parametrize("positives", ["multi", "identity"])
def test_matches_the_oracle(positives):
    loss = functools.partial(clip_loss, positives=positives)
    run = jax.jit(loss)
    for b, seed in [
        *((7, seed) for seed in range(8)),
        *((1, seed) for seed in range(3)),
    ]:
        arrays = draw(b, seed=seed)
        want = oracle(*arrays, positives)
        np.testing.assert_allclose(run(*arrays), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(eager(loss)(*arrays), want, rtol=1e-4, atol=1e-5)


def test_equals_plain_clip_when_all_labels_differ():
    eeg, text, scale, _ = draw(6)
    label = np.random.default_rng(1).permutation(6)
    log_p = lambda z: scipy.special.log_softmax(z, axis=-1)
    s = scale * eeg @ text.T
    plain = -0.5 * np.diag(log_p(s) + log_p(s.T))
    np.testing.assert_allclose(compiled(eeg, text, scale, label), plain, rtol=1e-5)


def test_follows_a_joint_permutation():
    eeg, text, scale, label = draw(9)
    order = np.random.default_rng(1).permutation(9)
    want = compiled(eeg, text, scale, label)[order]
    got = compiled(eeg[order], text[order], scale, label[order])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_eeg_half_is_a_class_loss_with_log_counts():
    eeg, _, scale, label = draw(12, k=3, unlabelled=False)
    classes = unit(np.random.default_rng(2).normal(size=(3, 5)))
    z, n = scale * eeg @ classes.T, np.bincount(label, minlength=3)
    log_q = scipy.special.log_softmax(z + np.log(n), axis=-1)
    eeg_half = -log_q[np.arange(12), label] + np.log(n[label])
    text = classes[label]
    s = scale * text @ eeg.T
    same = (label[:, None] == label) / n[label][:, None]
    text_half = -(same * scipy.special.log_softmax(s, axis=-1)).sum(-1)
    want = 0.5 * (eeg_half + text_half)
    np.testing.assert_allclose(compiled(eeg, text, scale, label), want, rtol=1e-4)


def test_unlabelled_examples_are_not_there():
    eeg, text, scale, label = draw(9, seed=3)
    keep = label >= 0
    assert 0 < keep.sum() < 9
    got = compiled(eeg, text, scale, label)
    want = compiled(eeg[keep], text[keep], scale, label[keep])
    np.testing.assert_allclose(got[keep], want, rtol=1e-5)
    np.testing.assert_array_equal(got[~keep], 0)
    total = lambda e, t: compiled(e, t, scale, label).sum()
    grads = jax.jit(jax.grad(total, (0, 1)))(eeg, text)
    for grad in grads:
        np.testing.assert_array_equal(grad[~keep], 0)


@pytest.mark.parametrize("positives", ["multi", "identity"])
def test_a_batch_without_labels_is_zero(positives):
    eeg, text, scale, label = draw(4)
    loss = jax.jit(functools.partial(clip_loss, positives=positives))
    fn = lambda e: loss(e, text, scale, 0 * label - 1).sum()
    value, grad = jax.jit(jax.value_and_grad(fn))(eeg)
    assert value == 0
    np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize("positives", ["multi", "identity"])
def test_devices_with_unequal_counts_equal_one(positives):
    eeg, text, scale, label = draw(16, seed=5)
    label[:4] = -1
    counts = (label >= 0).reshape(4, 4).sum(1)
    assert len(set(counts.tolist())) > 1
    assert counts[0] == 0

    def mean(eeg, text, scale, label, axis_name=None):
        values = clip_loss(
            eeg, text, scale, label, positives=positives, axis_name=axis_name
        )
        return weighted_mean(values, (label >= 0) * 1.0, axis_name=axis_name)

    whole = jax.jit(jax.value_and_grad(mean, (0, 1, 2)))
    want, want_grads = whole(eeg, text, scale, label)
    cut = lambda x: x.reshape(4, 4, *x.shape[1:])
    value, grads = jax.pmap(
        jax.value_and_grad(functools.partial(mean, axis_name="i"), (0, 1, 2)),
        "i",
        in_axes=(0, 0, None, 0),
    )(cut(eeg), cut(text), scale, cut(label))
    np.testing.assert_allclose(value, want, rtol=1e-5)
    # Inside a loss, each device's gradient is that of the sum over four devices.
    for got, whole in zip(grads[:2], want_grads[:2], strict=True):
        got = np.reshape(got, whole.shape) / 4
        np.testing.assert_allclose(got, whole, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grads[2].mean(), want_grads[2], rtol=1e-4)


def test_gradient_and_number_type():
    eeg, text, scale, label = draw(6)
    half = compiled(eeg.astype(jnp.bfloat16), text, scale, label)
    assert half.dtype == jnp.float32
    with jax.enable_x64(True):
        fn = lambda e, t, s: compiled(e, t, s, label)
        assert fn(eeg, text, scale).dtype == jnp.float64
        check_grads(fn, (eeg, text, scale), order=1, modes=["rev"])


def test_products_are_exact_where_the_default_is_not():
    lowered = jax.jit(clip_loss).lower(*draw(4)).as_text()
    dots = [line for line in lowered.splitlines() if "dot_general" in line]
    assert len(dots) == 2
    assert all("HIGHEST" in line for line in dots)


def test_bad_arguments():
    eeg, text, scale, label = draw(4)
    with pytest.raises(ValueError, match="'some'"):
        clip_loss.__wrapped__(eeg, text, scale, label, positives="some")
    with pytest.raises(ValueError, match="differ in shape"):
        clip_loss.__wrapped__(eeg, text[:2], scale, label)
