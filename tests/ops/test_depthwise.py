import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.ops.depthwise import depthwise_conv1d, same_padding

compiled = jax.jit(depthwise_conv1d)


def oracle(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    b, t, d = x.shape
    k = kernel.shape[0]
    y = np.zeros((b, t, d))
    for time in range(t):
        for tap in range(k):
            source = time + tap - (k - 1) // 2
            if 0 <= source < t:
                y[:, time] += kernel[tap] * x[:, source]
    return y


def library_conv(x, kernel):
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, None, :],
        (1,),
        [same_padding(x.shape[1], kernel.shape[0])],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=x.shape[-1],
    )


def arrays(b, t, d, k, dtype=np.float32):
    rng = np.random.default_rng(b + 10 * t + 100 * d + 1000 * k)
    return rng.normal(size=(b, t, d)).astype(dtype), rng.normal(size=(k, d)).astype(
        dtype
    )


@pytest.mark.parametrize(
    ("b", "t", "d", "k"),
    [
        (1, 1, 1, 1),
        (2, 9, 3, 4),
        (3, 5, 1, 8),
        (1, 8, 4, 5),
        (2, 2, 2, 7),
        (1, 6, 1, 6),
    ],
)
def test_equals_the_sum(b, t, d, k):
    x, kernel = arrays(b, t, d, k)
    got = compiled(x, kernel)
    np.testing.assert_allclose(got, oracle(x, kernel), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 4, 7, 31])
def test_value_and_gradients_equal_those_of_the_library_convolution(k):
    x, kernel = arrays(2, 20, 3, k)
    g = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)

    @jax.jit
    def both(x, kernel, g):
        forms = (depthwise_conv1d, library_conv)
        pairs = [jax.vjp(form, x, kernel) for form in forms]
        return [(value, pull(g)) for value, pull in pairs]

    (got, pulled), (want, wanted) = both(x, kernel, g)
    np.testing.assert_allclose(got, want, atol=1e-5)
    for mine, other in zip(pulled, wanted, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)


@pytest.mark.parametrize("k", [4, 5])
def test_gradients_equal_finite_differences(k):
    with jax.enable_x64(True):
        x, kernel = arrays(2, 6, 2, k, np.float64)
        weights = np.random.default_rng(2).normal(size=x.shape)

        @jax.jit
        def loss(x, kernel):
            return jnp.sum(weights * depthwise_conv1d(x, kernel) ** 2)

        gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, kernel)
        for argument, gradient in enumerate(gradients):
            direction = np.random.default_rng(3).normal(size=gradient.shape)
            step = [np.zeros_like(x), np.zeros_like(kernel)]
            step[argument] = 1e-6 * direction
            up = loss(x + step[0], kernel + step[1])
            down = loss(x - step[0], kernel - step[1])
            want = float(up - down) / 2e-6
            np.testing.assert_allclose(np.sum(gradient * direction), want, rtol=1e-6)


def test_batching_equals_a_loop():
    x, kernel = arrays(3, 8, 2, 5)
    stack = np.stack([x, x[::-1]])
    kernels = np.stack([kernel, kernel[::-1]])
    got = jax.jit(jax.vmap(depthwise_conv1d))(stack, kernels)
    want = [oracle(a, w) for a, w in zip(stack, kernels, strict=True)]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_bfloat16_stays_and_its_kernel_gradient_sums_in_float32():
    x = np.ones((4, 400, 2), jnp.bfloat16)
    kernel = np.ones((3, 2), np.float32)

    @jax.jit
    def run(x, kernel):
        y, pull = jax.vjp(depthwise_conv1d, x, kernel)
        return y, pull(jnp.ones_like(y))

    y, (dx, dkernel) = run(x, kernel)
    assert y.dtype == dx.dtype == jnp.bfloat16
    np.testing.assert_array_equal(dkernel[1], 1600.0)  # bfloat16 would stop at 256
    assert dkernel.dtype == jnp.float32


@pytest.mark.parametrize(
    ("platform", "convolutions"), [("cpu", 0), ("cuda", 3), ("tpu", 3)]
)
def test_the_form_is_chosen_for_the_platform_it_is_lowered_for(platform, convolutions):
    x, kernel = arrays(2, 20, 3, 5)

    def step(x, kernel):
        y, pull = jax.vjp(depthwise_conv1d, x, kernel)
        return y, pull(y)

    exported = jax.export.export(jax.jit(step), platforms=[platform])(x, kernel)
    assert exported.mlir_module().count("stablehlo.convolution") == convolutions


def test_both_platforms_in_one_program():
    x, kernel = arrays(2, 20, 3, 5)
    both = jax.export.export(jax.jit(depthwise_conv1d), platforms=["tpu", "cuda"])
    assert set(both(x, kernel).platforms) == {"tpu", "cuda"}


@pytest.mark.parametrize(
    ("length", "kernel", "stride"), [(800, 15, 4), (200, 29, 2), (7, 3, 2), (5, 1, 4)]
)
def test_same_padding_gives_one_output_a_stride(length, kernel, stride):
    before, after = same_padding(length, kernel, stride)
    assert 0 <= after - before <= 1
    assert (length + before + after - kernel) // stride + 1 == -(-length // stride)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(5, 3\)"):
        depthwise_conv1d(jnp.zeros((2, 8, 4)), jnp.zeros((5, 3)))
