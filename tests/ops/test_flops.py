import jax
import jax.numpy as jnp
import pytest

from eegkd.models import Bert, BertConfig, Conformer, ConformerConfig
from eegkd.ops import count_flops

MATMUL = 2 * 64 * 256 * 256


def float32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def xla_count(fn, *args) -> float:
    return jax.jit(fn).lower(*args).cost_analysis()["flops"]


@pytest.fixture(scope="module")
def conformer():
    cfg = ConformerConfig(n_chans=7, dim=128, depth=2, num_heads=4, dropout=0.0)
    x = float32(4, 7, 256)
    variables = jax.eval_shape(Conformer(cfg).init, jax.random.key(0), x)

    def forward(variables, x):
        return Conformer(cfg).apply(variables, x)["pooled"]

    return forward, variables, x


def test_a_scan_counts_every_step():
    def scanned(x, w):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    def unrolled(x, w):
        for i in range(12):
            x = x @ w[i]
        return x

    args = float32(64, 256), float32(12, 256, 256)
    assert count_flops(scanned, *args) == count_flops(unrolled, *args) == 12 * MATMUL
    assert xla_count(scanned, *args) < 1.01 * MATMUL  # why this counter exists


def test_an_unrolled_model_is_within_a_percent_of_xla(conformer):
    forward, *args = conformer
    assert count_flops(forward, *args) == pytest.approx(
        xla_count(forward, *args), rel=0.01
    )


def test_a_training_step_is_within_a_percent_of_xla(conformer):
    forward, *args = conformer

    def step(variables, x):
        gradients = jax.grad(lambda v: (forward(v, x) ** 2).sum())(variables)
        return jax.tree.map(lambda p, g: p - 0.1 * g, variables, gradients)

    assert count_flops(step, *args) == pytest.approx(xla_count(step, *args), rel=0.01)


def test_a_scanned_model_is_depth_times_one_layer():
    def count(depth):
        cfg = BertConfig(vocab_size=9, dim=32, depth=depth, num_heads=2, ffn_dim=64)
        ids = jnp.zeros((2, 8), jnp.int32)
        variables = jax.eval_shape(Bert(cfg).init, jax.random.key(0), ids)
        return count_flops(Bert(cfg).apply, variables, ids)

    assert count(12) - count(0) == 12 * (count(1) - count(0))


def with_rule(fn):
    wrapped = jax.custom_vjp(fn)
    wrapped.defvjp(lambda x: (fn(x), x), lambda x, g: (g @ x.T + x.T @ g,))
    return wrapped


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, with_rule])
def test_calls_are_entered(wrap):
    fn = wrap(lambda x: x @ x)
    assert count_flops(fn, float32(8, 8)) == 2 * 8**3


def test_the_dearest_branch_counts():
    def choose(i, x):
        return jax.lax.switch(i, [lambda x: x, lambda x: x @ x @ x, lambda x: x @ x], x)

    assert count_flops(choose, jnp.array(0), float32(8, 8)) == 2 * 2 * 8**3


def test_batched_products_reductions_and_moves():
    def fn(x, y):
        return jnp.einsum("bij,bkj->bik", x, y).sum()

    assert count_flops(fn, float32(3, 4, 5), float32(3, 6, 5)) == 3 * 4 * 6 * (10 + 1)
    assert count_flops(lambda x: x.T.reshape(-1)[2:], float32(3, 4)) == 0
    assert count_flops(lambda x: jnp.sin(x) + x, float32(3, 4)) == 24
    assert count_flops(lambda i: i * 3, jax.ShapeDtypeStruct((5,), jnp.int32)) == 0


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        ({"padding": [(0, 0)]}, 8 * 3),
        ({"padding": [(1, 1)]}, 10 * 3 - 2),
        ({"padding": [(0, 0)], "window_strides": (2,)}, 4 * 3),
        ({"padding": [(2, 2)], "lhs_dilation": (2,)}, 10 * 3),
    ],
)
def test_a_convolution_counts_products_of_real_elements(options, pairs):
    options = {"window_strides": (1,)} | options

    def fn(x, w):
        return jax.lax.conv_general_dilated(
            x, w, dimension_numbers=("NWC", "WIO", "NWC"), **options
        )

    args = float32(2, 10, 4), float32(3, 4, 6)
    assert count_flops(fn, *args) == 2 * pairs * 2 * 4 * 6
    assert count_flops(fn, *args) == pytest.approx(xla_count(fn, *args))


def test_a_loop_of_unknown_length_is_refused():
    def fn(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="unknown length"):
        count_flops(fn, float32(2, 2))
