import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from eegkd.losses import (
    across_batch,
    cka_distance,
    relation_angle,
    relation_distance,
    rkd_angle,
    rkd_distance,
    similarity_kl,
    similarity_preserving,
    weighted_mean,
)

SLOW = pytest.mark.slow
SETS = [relation_distance, relation_angle, rkd_distance, rkd_angle]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


@pytest.mark.parametrize("fn", SETS)
def test_a_moved_turned_and_scaled_teacher_is_the_same(fn):
    fn, angle = jax.jit(fn), fn is relation_angle
    student = draw(2, 7, 5)
    move = 0 if angle else 20  # a cosine is seen from the origin
    teacher = (30 * student @ rotation(5) + move).astype(np.float32)
    np.testing.assert_allclose(fn(student, teacher), 0, atol=1e-6)
    other = draw(2, 7, 5, seed=1)
    want = fn(student, other)
    assert np.all(want > 1e-3)
    np.testing.assert_allclose(fn(teacher, other), want, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
@pytest.mark.parametrize("fn", SETS)
def test_no_scale_is_too_small_or_too_large(fn, scale):
    fn = jax.jit(fn)
    student, teacher = draw(2, 2, 7, 5)
    want = fn(student, teacher)
    got = fn(np.float32(scale) * student, teacher)
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize("fn", SETS)
def test_widths_may_differ(fn):
    fn = jax.jit(fn)
    student, teacher = draw(2, 6, 4), draw(2, 6, 9, seed=1)
    assert np.all(fn(student, teacher) > 1e-3)
    wide = np.pad(student, ((0, 0), (0, 0), (0, 5)))
    np.testing.assert_allclose(fn(student, wide), 0, atol=1e-6)


@pytest.mark.parametrize("fn", SETS)
def test_unlike_numbers_of_tokens_are_refused(fn):
    with pytest.raises(ValueError, match="align the teacher's first"):
        fn.__wrapped__(jnp.ones((1, 3, 2)), jnp.ones((1, 4, 2)))


@functools.partial(jax.jit, static_argnames="chunk")
@jax.value_and_grad
def total_angle(student, teacher, **options):
    return rkd_angle(student, teacher, **options).sum()


@pytest.mark.parametrize(
    "chunk", [*(pytest.param(c, marks=SLOW) for c in (1, 7)), 4, 100]
)
def test_angles_do_not_depend_on_the_chunk(chunk):
    student, teacher = draw(2, 2, 7, 3)
    want = total_angle(student, teacher)
    got = total_angle(student, teacher, chunk=chunk)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-4, atol=1e-7)


@pytest.mark.optimised
def test_angles_take_memory_by_the_chunk():
    tokens = jax.ShapeDtypeStruct((2, 64, 8), jnp.float32)

    def temporaries(chunk):
        fn = lambda s, t: rkd_angle(s, t, chunk=chunk).sum()
        done = jax.jit(jax.grad(fn)).lower(tokens, tokens).compile()
        return done.memory_analysis().temp_size_in_bytes

    small, large = temporaries(4), temporaries(16)
    assert 2 < large / small < 5
    # Never what all chunks together would take: 2 x 64^3 numbers.
    assert small < 2 * 64**3 * 4


def test_nearly_equal_tokens_count_as_one_place():
    """The Gram matrix cannot see a gap of a millionth; the angle there is nothing."""
    student = draw(1, 5, 4)
    student[0, 1] = student[0, 0] * (1 + 1e-6)
    value, grad = total_angle(student, draw(1, 5, 4))
    assert value < 2
    assert np.max(np.abs(grad)) < 100


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        rkd_angle(jnp.ones((1, 3, 2)), jnp.ones((1, 3, 2)), chunk=0)


def test_cka_sees_neither_scale_nor_rotation_nor_place():
    student, teacher = draw(9, 5), draw(9, 4, seed=1)
    distance = jax.jit(cka_distance)
    want = distance(student, teacher)
    assert np.all(want > 0.05)
    moved = (-40 * student @ rotation(5) + 7).astype(np.float32)
    np.testing.assert_allclose(distance(moved, teacher), want, rtol=1e-4)
    np.testing.assert_allclose(distance(moved, student), 0, atol=1e-5)


def test_similarity_of_maps_is_that_of_flat_activations():
    student, teacher = draw(4, 3, 2), draw(4, 5, seed=1)
    for fn in map(jax.jit, (similarity_preserving, cka_distance)):
        want = fn(student.reshape(4, 6), teacher)
        np.testing.assert_allclose(fn(student, teacher), want, rtol=1e-6)
        turned = (20 * teacher @ rotation(5)).astype(np.float32)
        np.testing.assert_allclose(fn(student, turned), want, rtol=1e-4)


def units(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def similarity(student, teacher, mask, *, axis_name=None):
    return similarity_kl(
        *(student[:, :3], student[:, 3:], jnp.float32(4.0)),
        *(teacher[:, :3], teacher[:, 3:], jnp.float32(6.0)),
        mask,
        axis_name=axis_name,
    )


BATCH = {
    "similarity_kl": similarity,
    "similarity_preserving": similarity_preserving,
    "cka_distance": cka_distance,
    "rkd_distance": across_batch(rkd_distance),
    "rkd_angle": across_batch(functools.partial(rkd_angle, chunk=5)),
}
# All gather their examples in one way: one of each kind is asked in the default suite.
COMMON = ("similarity_kl", "rkd_distance")


def masked_mean(student, teacher, mask, name, axis_name=None):
    values = BATCH[name](student, teacher, mask, axis_name=axis_name)
    return weighted_mean(values, mask * 1.0, axis_name=axis_name)


alone = jax.jit(jax.value_and_grad(masked_mean), static_argnames="name")


@pytest.mark.parametrize(
    "name", [n if n in COMMON else pytest.param(n, marks=SLOW) for n in BATCH]
)
def test_devices_together_equal_one(name):
    student, teacher = units(draw(2, 16, 6))
    mask = np.random.default_rng(3).random(16) > 0.3
    mask[:4] = False
    assert len(set(mask.reshape(4, 4).sum(1).tolist())) > 2
    want, wanted = alone(student, teacher, mask, name)
    assert want > 1e-3
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.shard_map(
        jax.value_and_grad(functools.partial(masked_mean, name=name, axis_name="i")),
        mesh=mesh,
        in_specs=P("i"),
        out_specs=(P(), P("i")),
        check_vma=False,
    )
    got, grads = jax.jit(spread)(student, teacher, mask)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    # Inside a loss, each device's gradient is that of the sum over four devices.
    scale = np.max(np.abs(wanted))
    np.testing.assert_allclose(grads / 4, wanted, atol=2e-5 * scale)
    assert not np.any(np.asarray(grads)[~mask])


@pytest.mark.parametrize("name", BATCH)
def test_masked_examples_are_not_there(name):
    student, teacher = units(draw(2, 16, 6))
    keep = np.arange(16) % 3 != 1
    mean = jax.value_and_grad(lambda s, t: BATCH[name](s, t, keep[keep]).mean())
    want, wanted = jax.jit(mean)(student[keep], teacher[keep])
    student[~keep], teacher[~keep] = np.nan, np.inf
    got, grad = alone(student, teacher, keep, name)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(grad[keep], wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(grad[~keep], 0)


@pytest.mark.parametrize("fn", [similarity_preserving, cka_distance])
def test_unlike_batches_are_refused(fn):
    with pytest.raises(ValueError, match="differ in examples"):
        fn.__wrapped__(jnp.ones((3, 2)), jnp.ones((4, 2)))


@pytest.mark.optimised
def test_the_gram_form_is_faster_than_the_naive_one():
    """At 2 x 128 tokens of width 128; the benchmark program has the full size."""

    def naive(student, teacher):
        def cosines(x):
            gap = x[:, None, :, :] - x[:, :, None, :]
            square = jnp.sum(gap**2, axis=-1, keepdims=True)
            unit = gap * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
            return jnp.einsum("bijd,bikd->bijk", unit, unit)

        size = jnp.abs(cosines(teacher) - cosines(student))
        return jnp.mean(jnp.where(size < 1, 0.5 * size**2, size - 0.5))

    student, teacher = draw(2, 2, 128, 128)

    def seconds(fn):
        run = jax.jit(jax.value_and_grad(fn))
        value, _ = jax.block_until_ready(run(student, teacher))
        best = np.inf
        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(run(student, teacher))
            best = min(best, time.perf_counter() - start)
        return float(value), best

    want, slow = seconds(naive)
    got, fast = seconds(lambda s, t: rkd_angle(s, t).mean())
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert slow > 1.5 * fast, f"naive {slow:.3f} s, Gram {fast:.3f} s"
