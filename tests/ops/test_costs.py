import jax
import jax.numpy as jnp
import pytest

from eegkd.ops import count_flops
from eegkd.ops.costs import count_costs


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def test_a_product_reads_and_writes_its_arrays():
    costs = count_costs(lambda x, w: x @ w, array(8, 16), array(16, 4))
    # Once as arguments and result of the program, once as those of the product.
    assert costs.traffic == 2 * 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert costs.flops == 2 * 8 * 16 * 4
    assert (costs.half_flops, costs.reduced, costs.gathered) == (0, 0, 0)


def test_elementwise_work_is_fused_and_reductions_read():
    costs = count_costs(lambda x: jnp.sum(jnp.sin(x) + x), array(8, 16))
    assert costs.traffic == 4 * (8 * 16 + 1) + 4 * 8 * 16


def test_products_of_16_bits_are_told_apart():
    half = array(8, 8, dtype=jnp.bfloat16)
    costs = count_costs(lambda x, y: (x @ x, y @ y), half, array(4, 4))
    assert costs.half_flops == 2 * 8**3
    assert costs.flops == 2 * 8**3 + 2 * 4**3
    mixed = count_costs(lambda x, y: x.astype(jnp.float32) @ y, half, array(8, 8))
    assert mixed.half_flops == 0


def test_a_scan_pays_for_every_step():
    def scanned(x, w):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    def unrolled(x, w):
        return x @ w[0] @ w[1] @ w[2]

    args = array(8, 8), array(3, 8, 8)
    assert count_costs(scanned, *args) == count_costs(unrolled, *args)


def test_collectives_are_counted_without_devices():
    def fn(x, w):
        every = jax.lax.all_gather(x @ w, "data", tiled=True)
        return jax.lax.psum(every.sum(), "data"), jax.lax.pmean(w, "data")

    costs = count_costs(fn, array(2, 3), array(3, 5), axis=("data", 1024))
    assert costs.gathered == 4 * 2 * 5
    assert costs.reduced == 4 * (3 * 5 + 1)


def test_the_derivative_of_a_gather_sends_as_much_again():
    def loss(x):
        every = jax.lax.all_gather(x, "data", tiled=True)
        return jnp.sum(every**2)

    costs = count_costs(jax.grad(loss), array(2, 3), axis=("data", 4))
    assert costs.gathered == 2 * 4 * 2 * 3


def test_keys_cost_nothing_and_operations_are_those_of_the_counter():
    def fn(key, x):
        return jax.random.normal(key, x.shape) * x @ x.T

    key = jax.eval_shape(lambda: jax.random.key(0))
    costs = count_costs(fn, key, array(8, 8))
    assert costs.flops == count_flops(fn, key, array(8, 8))
    assert costs.traffic == pytest.approx(4 * 8 * 8 * (2 + 3), abs=64)
