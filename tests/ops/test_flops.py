import jax
import jax.numpy as jnp
import optax
import pytest

from eegkd.models import Bert, BertConfig, Conformer, ConformerConfig
from eegkd.ops import count_flops
from eegkd.systems import SignalConfig, distilclip_eeg
from eegkd.systems.distilclip_eeg.config import (
    DistilClipConfig,
    StudentConfig,
    TextConfig,
)
from eegkd.train import init_state, make_train_step

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


@pytest.mark.nightly  # The step below holds it.
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


def test_a_plain_transformer_is_within_a_percent_of_xla():
    """XLA counts exponentials and other transcendentals apart; they are a rest."""
    b, n, d, heads, depth = 2, 64, 128, 4, 3

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(
            x.var(-1, keepdims=True) + 1e-5
        )

    def block(x, qkv, out, up, down):
        q, k, v = jnp.moveaxis((norm(x) @ qkv).reshape(b, n, 3, heads, -1), 2, 0)
        scores = jnp.einsum("bihd,bjhd->bhij", q, k) / (d / heads) ** 0.5
        mixed = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(scores), v)
        x = x + mixed.reshape(b, n, d) @ out
        return x + jax.nn.relu(norm(x) @ up) @ down

    def loss(layers, x):
        for layer in layers:
            x = block(x, *layer)
        return (x**2).mean()

    shapes = ((d, 3 * d), (d, d), (d, 4 * d), (4 * d, d))
    layers = [tuple(float32(*shape) for shape in shapes)] * depth
    args = layers, float32(b, n, d)
    for fn in (loss, jax.grad(loss)):
        assert count_flops(fn, *args) == pytest.approx(xla_count(fn, *args), rel=0.01)


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("teacher", marks=pytest.mark.nightly),
        pytest.param("student", marks=pytest.mark.slow),
    ],
)
def test_a_distillation_step_is_within_a_percent_of_xla(stage):
    """With linear heads: the text tower is a scan, whose body XLA counts once.

    Without dropout: XLA counts the integer operations of random bits as well.
    """
    config = DistilClipConfig(
        signal=SignalConfig(n_chans=7, n_times=256),
        eeg=ConformerConfig(dim=128, depth=2, num_heads=4, dropout=0.0),
        text=TextConfig(source="none"),
        student=StudentConfig(depth=1, hard="ce"),
    )
    system = distilclip_eeg.make_system(config)
    batch = {"signal": float32(4, 7, 256), "label": jax.ShapeDtypeStruct((4,), "int32")}
    key, tx = jax.random.key(0), optax.sgd(0.1)
    teacher, student = system.stages
    upstream = {"teacher": jax.eval_shape(teacher.init, key, batch, {})}
    own = jax.eval_shape(student.init, key, batch, upstream)
    own, upstream = (own, upstream) if stage == "student" else (upstream["teacher"], {})
    chosen = {"teacher": teacher, "student": student}[stage]
    state = jax.eval_shape(lambda v: init_state(chosen, v, tx, jax.random.key(0)), own)
    args = state, own.frozen, upstream, batch
    step = make_train_step(system, stage, tx)
    assert count_flops(step, *args) == pytest.approx(xla_count(step, *args), rel=0.01)


def test_a_scanned_model_is_depth_times_one_layer():
    def count(depth):
        cfg = BertConfig(vocab_size=9, dim=32, depth=depth, num_heads=2, ffn_dim=64)
        ids = jnp.zeros((2, 8), jnp.int32)
        variables = jax.eval_shape(Bert(cfg).init, jax.random.key(0), ids)
        return count_flops(Bert(cfg).apply, variables, ids)

    assert count(12) - count(1) == 11 * (count(2) - count(1)) > 0


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
