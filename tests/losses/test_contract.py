"""What every loss of a student and a teacher keeps to, one table for all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd import losses
from eegkd.ops.pairwise import unit_vectors
from tests.oracles import losses as oracles

LABEL = np.array([1, 0, -1, 2, 0, 1, 1, 2])
WARM = {"temperature": 2.0}


def towers(student, teacher, unit):
    """Six arguments from two: halves of the width, at length one, as the towers."""
    half = student.shape[1] // 2 or 1
    cut = lambda x: (unit(x[:, :half]), unit(x[:, -half:]))
    return (*cut(student), np.float32(3.0), *cut(teacher), np.float32(3.0))


def similarity(student, teacher):
    arrays = towers(student, teacher, unit_vectors)
    return losses.similarity_kl(*map(jnp.asarray, arrays), temperature=2.0)


def similarity_oracle(student, teacher):
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    parts = functools.partial(towers, unit=unit)
    return oracles.similarity_kl(parts, 2.0)(student, teacher)


def over_grid(fn):
    """Spectra of `[b, n, d]` along the patches."""
    return functools.partial(fn, axis=1)


def decoupled(student, teacher):
    label = jnp.minimum(LABEL[: student.shape[0]], student.shape[1] - 1)
    return losses.decoupled_kd(student, teacher, label)


def decoupled_oracle(student, teacher):
    label = np.minimum(LABEL, student.shape[1] - 1)
    return oracles.decoupled_kd(label)(student, teacher)


ROWS = {  # [b, k] and [b, k]
    "kd_kl": (functools.partial(losses.kd_kl, **WARM), oracles.kd_kl(2.0)),
    "reverse_kl": (functools.partial(losses.reverse_kl, **WARM), oracles.reverse_kl(2)),
    "jensen_shannon": (
        functools.partial(losses.jensen_shannon, beta=0.3, temperature=2.0),
        oracles.jensen_shannon(2.0, 0.3),
    ),
    "decoupled_kd": (decoupled, decoupled_oracle),
    "binary_kd_kl": (
        functools.partial(losses.binary_kd_kl, **WARM),
        oracles.over_labels(oracles.kd_kl(2.0)),
    ),
    "binary_reverse_kl": (
        functools.partial(losses.binary_reverse_kl, **WARM),
        oracles.over_labels(oracles.reverse_kl(2.0)),
    ),
    "binary_jensen_shannon": (
        functools.partial(losses.binary_jensen_shannon, **WARM),
        oracles.over_labels(oracles.jensen_shannon(2.0)),
    ),
    "similarity_kl": (similarity, similarity_oracle),
    "similarity_preserving": (
        losses.similarity_preserving,
        oracles.similarity_preserving,
    ),
    "cka_distance": (losses.cka_distance, oracles.cka_distance),
    "rkd_over_batch": (
        losses.across_batch(losses.rkd_distance),
        oracles.over_batch(oracles.relation(0, oracles.smooth_l1)),
    ),
}
SETS = {  # [b, n, d] and [b, n, d]
    "relation_distance": (losses.relation_distance, oracles.relation(0)),
    "relation_angle": (losses.relation_angle, oracles.relation(1)),
    "rkd_distance": (
        losses.rkd_distance,
        oracles.relation(0, oracles.smooth_l1),
    ),
    "rkd_angle": (functools.partial(losses.rkd_angle, chunk=2), oracles.rkd_angle),
    "fitnet": (losses.fitnet, oracles.fitnet()),
    "fitnet_normalised": (
        functools.partial(losses.fitnet, normalise=True),
        oracles.fitnet(True),
    ),
    "token_cosine": (losses.token_cosine, oracles.token_cosine),
    "attention_alignment": (losses.attention_alignment, oracles.attention_alignment),
    "uld": (losses.uld, oracles.uld),
    "spectral_magnitude": (
        over_grid(losses.spectral_magnitude),
        oracles.spectral_magnitude(0),
    ),
    "spectral_phase": (
        functools.partial(losses.spectral_phase, axis=1, eps=1e-15),
        oracles.spectral_phase(0),
    ),
}
CASES = {**ROWS, **SETS}
# Sets whose tokens (or examples) are compared with each other.
PER_BATCH = {
    "similarity_kl",
    "similarity_preserving",
    "cka_distance",
    "rkd_over_batch",
}
# One a family is also computed operation by operation.
EAGER = {"kd_kl", "similarity_preserving", "fitnet", "spectral_magnitude"}
names = pytest.mark.parametrize("name", CASES)


def draw(name, b=4, n=5, d=6, seed=0):
    shape = (2, b, d) if name in ROWS else (2, b, n, d)
    return np.random.default_rng(seed).normal(size=shape)


@functools.cache
def compiled(name):
    """A loss, and the gradients by both sides of its weighted sum, in one program.

    Every test below that can, calls it at one shape, so that it is compiled once for
    each type of numbers. The weights tell examples apart.
    """
    fn = CASES[name][0]

    def total(*args):
        values = fn(*args)
        return values @ jnp.arange(1, len(values) + 1, dtype=values.dtype), values

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


@names
def test_equals_the_oracle_and_its_gradient_is_that_of_differences(name):
    oracle = CASES[name][1]
    with jax.enable_x64(True):
        for seed in range(3):
            student, teacher = draw(name, seed=seed)
            (_, got), grads = compiled(name)(student, teacher)
            assert got.dtype == jnp.float64
            # Up to the eps inside roots, of what is nearly nothing.
            want = oracle(student, teacher)
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
        steps = np.random.default_rng(9).normal(size=(2, *student.shape))
        step = 1e-6 * steps
        high, low = (
            compiled(name)(student + sign * step[0], teacher + sign * step[1])[0][0]
            for sign in (1, -1)
        )
        along = sum((g * x).sum() for g, x in zip(grads, steps, strict=True))
        np.testing.assert_allclose(along, (high - low) / 2e-6, rtol=1e-5, atol=1e-6)


@names
def test_one_of_everything_equals_the_oracle(name):
    """One example; one token of one number, or one class, which is no choice."""
    student, teacher = draw(name, b=1, n=1, d=1)
    with jax.enable_x64(True):
        (_, got), grads = compiled(name)(student, teacher)
    want = CASES[name][1](student, teacher)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    assert all(np.all(np.isfinite(grad)) for grad in grads)
    if name in set(ROWS) - PER_BATCH and not name.startswith("binary"):
        np.testing.assert_allclose(got, 0, atol=1e-6)


@names
def test_number_types_agree(name):
    student, teacher = (jnp.asarray(x, jnp.bfloat16) for x in draw(name))
    fn, oracle = CASES[name]
    low = jax.jit(fn)(student, teacher)
    assert low.dtype == jnp.float32
    assert low.shape == student.shape[:1]
    raised = student.astype(jnp.float32), teacher.astype(jnp.float32)
    (_, values), _ = compiled(name)(*raised)
    np.testing.assert_allclose(low, values, rtol=2e-5, atol=2e-6)
    want = oracle(*(np.asarray(x, np.float64) for x in raised))
    np.testing.assert_allclose(low, want, rtol=2e-4, atol=2e-5)
    if name in EAGER:
        np.testing.assert_allclose(fn(*raised), values, rtol=2e-5, atol=2e-6)


@names
def test_one_example_alone_and_mapped(name):
    student, teacher = (x.astype(np.float32) for x in draw(name))
    fn = CASES[name][0]
    one = jax.vmap(lambda s, t: fn(s[None], t[None])[0])
    got = jax.jit(one)(student, teacher)
    (_, want), _ = compiled(name)(student, teacher)
    if name == "decoupled_kd":  # each example alone would have the first label
        got, want = got[:1], want[:1]
    if name in PER_BATCH:
        alone = jax.jit(fn)
        pairs = [(student[i, None], teacher[i, None]) for i in (0, 1)]
        want = np.concatenate([alone(*pair) for pair in pairs])
        got = got[:2]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@names
def test_equal_sides_have_no_distance(name):
    student, _ = (x.astype(np.float32) for x in draw(name))
    (_, values), grads = compiled(name)(student, student)
    np.testing.assert_allclose(values, 0, atol=1e-6)
    # Of |x| and its like, zero is one slope of several; a weight never overshoots.
    assert all(jnp.all(jnp.isfinite(grad)) for grad in grads)


@names
def test_hard_inputs_stay_finite(name):
    plain, other = (x.astype(np.float32) for x in draw(name))
    some_zero = plain.copy()
    some_zero[:2] = 0
    some_zero[2, ..., 0] = 0
    hard = {
        "zeros": (0 * plain, 0 * plain),
        "zero student": (0 * plain, plain),
        "zero teacher": (plain, 0 * plain),
        "equal tokens": (0 * plain + 3, plain),
        "both equal": (0 * plain + 3, 0 * plain - 2),
        "some zeros": (some_zero, plain),
        "huge": (1e15 * plain, 1e15 * other),
        "huge against tiny": (1e15 * plain, 1e-15 * other),
        "tiny": (1e-15 * plain, 1e-15 * other),
        "far": (plain + 1e4, other - 1e4),
        "opposite": (plain, -plain),
    }
    for what, pair in hard.items():
        (_, values), grads = compiled(name)(*pair)
        for found in (values, *grads):
            assert np.all(np.isfinite(found)), what
        assert np.all(values >= -1e-5), what


MASKED = set(SETS) - {"spectral_magnitude", "spectral_phase", "uld"}


@pytest.mark.parametrize("name", sorted(MASKED))
def test_masked_tokens_are_not_there(name):
    """Whatever they hold; in any place."""
    student, teacher = (x.astype(np.float32) for x in draw(name, n=7))
    keep = np.array([True, True, False, True, False, True, True])
    mask = np.stack([keep] * len(student))
    run = compiled(name)
    (want, _), wanted = run(student[:, keep], teacher[:, keep])
    student[:, ~keep], teacher[:, ~keep] = np.nan, np.inf
    (got, _), grads = run(student, teacher, mask)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    for grad, trimmed in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(grad[:, keep], trimmed, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(grad[:, ~keep], 0)
    (_, nothing), _ = run(student, teacher, 0 * mask > 0)
    np.testing.assert_array_equal(nothing, 0)


@pytest.mark.parametrize("name", [*sorted(MASKED), *sorted(PER_BATCH)])
def test_a_joint_permutation_changes_nothing(name):
    student, teacher = (x.astype(np.float32) for x in draw(name, seed=4))
    fn = lambda *pair: np.asarray(compiled(name)(*pair)[0][1])
    axis = 0 if name in ROWS else 1
    order = np.random.default_rng(1).permutation(student.shape[axis])
    want = fn(student, teacher)
    got = fn(student.take(order, axis), teacher.take(order, axis))
    want = want[order] if name in ROWS else want
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["relation_distance", "relation_angle", "rkd_angle", *sorted(PER_BATCH)]
)
def test_products_are_exact_where_the_default_is_not(name):
    pair = (x.astype(np.float32) for x in draw(name, n=9, d=16))
    lowered = jax.jit(CASES[name][0]).lower(*pair).as_text()
    dots = [line for line in lowered.splitlines() if "dot_general" in line]
    assert dots
    assert all("HIGHEST" in line for line in dots)
