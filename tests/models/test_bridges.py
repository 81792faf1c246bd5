import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eegkd.losses import (
    attention_alignment,
    cross_entropy,
    fitnet,
    negative_entropy,
)
from eegkd.models import (
    LayerRouter,
    MultiHeadAlignment,
    RoutedTarget,
    TokenProjector,
    pool_tokens,
)
from eegkd.ops.mixing import standardise
from tests.oracles import losses as oracles

KEY = jax.random.key(0)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def init(module, *args):
    return jax.jit(module.init)(KEY, *args)


def total(tree):
    return sum(float(np.abs(x).sum()) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("num_heads", [1, 2])
def test_alignment_equals_numpy(num_heads):
    student, teacher = draw(2, 3, 4), draw(2, 5, 7, seed=1)
    module = MultiHeadAlignment(num_heads=num_heads)
    variables = init(module, student, teacher)
    out = jax.jit(module.apply)(variables, student, teacher)
    kernels = {
        name: np.asarray(p["kernel"], np.float64)
        for name, p in variables["params"].items()
    }
    for i in range(2):
        want = oracles.attention(student[i], teacher[i], kernels)
        np.testing.assert_allclose(out["aligned"][i], want, rtol=1e-4, atol=1e-5)
    assert out["attention"].shape == (2, num_heads, 3, 5)
    np.testing.assert_allclose(out["attention"].sum(-1), 1, rtol=1e-5)


def test_counts_of_the_paper_s_widths():
    """W^Q, W^O 1536 x 1536; W^K, W^V 4096 x 1536; and the task's way back."""
    module = MultiHeadAlignment(guard="none")
    shapes = jax.eval_shape(
        module.init, KEY, jnp.zeros((1, 256, 1536)), jnp.zeros((1, 576, 4096))
    )
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert count == 2 * 1536 * 1536 + 2 * 4096 * 1536


def test_masked_tokens_are_not_there():
    student, teacher = draw(2, 4, 4), draw(2, 6, 5, seed=1)
    s_keep = np.array([True, False, True, True])
    t_keep = np.array([False, True, True, True, False, True])
    module = MultiHeadAlignment(num_heads=2, num_segments=2, num_classes=3)
    trimmed = student[:, s_keep], teacher[:, t_keep]
    variables = init(module, *trimmed)
    run = jax.jit(module.apply)
    want = run(variables, *trimmed)
    student[:, ~s_keep], teacher[:, ~t_keep] = np.nan, np.inf
    masks = np.stack([s_keep] * 2), np.stack([t_keep] * 2)
    got = run(variables, student, teacher, *masks)
    for name in ("reconstruction", "target", "probe"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        got["aligned"][:, s_keep], want["aligned"], rtol=1e-4, atol=1e-5
    )
    assert np.all(np.isfinite(got["aligned"]))
    assert not np.any(np.asarray(got["attention"])[..., ~t_keep])


FLOWS = {  # guard: what the alignment loss moves: the module, the student by queries
    "none": (True, True),
    "stopgrad_query": (True, False),
    "freeze_after_warmup": (True, False),
    "reconstruct_teacher": (False, False),
}


@pytest.mark.parametrize("guard", FLOWS)
def test_where_the_gradient_of_the_aligned_tokens_goes(guard):
    student, teacher = draw(2, 3, 4), draw(2, 5, 7, seed=1)
    module = MultiHeadAlignment(num_heads=2, guard=guard)
    variables = init(module, student, teacher)

    def aligned(variables, student, learn):
        out = module.apply(variables, student, teacher, learn=learn)
        return jnp.sum(out["aligned"] ** 2)

    gradients = jax.jit(jax.grad(aligned, (0, 1)))
    by_module, by_student = gradients(variables, student, 1.0)
    assert (total(by_module) > 0, total(by_student) > 0) == FLOWS[guard]
    if guard == "freeze_after_warmup":
        assert total(gradients(variables, student, 0.0)[0]) == 0
    if guard == "reconstruct_teacher":

        def own_task(variables, student):
            out = module.apply(variables, student, teacher)
            return jnp.sum(fitnet(out["reconstruction"], out["target"]))

        by_both = jax.jit(jax.grad(own_task, (0, 1)))
        grads, by_student = by_both(variables, student)
        assert all(total(grads["params"][k]) > 0 for k in ("query", "value", "out"))
        assert total(by_student) == 0


def world(seed, size=256, n=4, m=8, d=8, e=16):
    """A student that knows nothing of the teacher: another source moves it."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    code, mixing = fixed.normal(size=(m, e)), fixed.normal(size=(m, 3, e))
    latent, other = rng.normal(size=(size, 3)), rng.normal(size=(size, 2))
    teacher = code + 0.5 * np.einsum("bk,mke->bme", latent, mixing)
    student = np.tanh(other @ fixed.normal(size=(2, n * d))).reshape(size, n, d)
    return student.astype(np.float32), teacher.astype(np.float32), latent


def explained(aligned, latent, new_aligned, new_latent):
    """R^2, on new examples, of the teacher's latent from the aligned tokens."""
    x, y = (
        np.c_[np.reshape(a, (len(a), -1)), np.ones(len(a))]
        for a in (aligned, new_aligned)
    )
    weights = np.linalg.solve(x.T @ x + 1e-2 * np.eye(x.shape[1]), x.T @ latent)
    error = ((y @ weights - new_latent) ** 2).sum()
    return 1 - error / ((new_latent - new_latent.mean(0)) ** 2).sum()


def train_alignment(guard, steps=600):
    """Returns the alignment loss over the student's variance, and the R^2."""
    student, teacher, latent = world(1)
    module = MultiHeadAlignment(num_heads=4, guard=guard)
    params, tx = module.init(KEY, student, teacher), optax.adam(1e-2)

    def loss(params):
        out = module.apply(params, student, teacher)
        value = jnp.mean(attention_alignment(jnp.asarray(student), out["aligned"]))
        if "target" in out:
            value += jnp.mean(fitnet(out["reconstruction"], out["target"]))
        return value

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda c: jax.lax.scan(step, c, None, length=steps)[0])
    params, _ = run((params, tx.init(params)))
    new_student, new_teacher, new_latent = world(2)
    old = module.apply(params, student, teacher)["aligned"]
    new = module.apply(params, new_student, new_teacher)["aligned"]
    variance = ((new_student - new_student.mean(0)) ** 2).sum(-1).mean()
    gap = float(jnp.mean(attention_alignment(new_student, new)) / variance)
    return gap, explained(old, latent, new, new_latent)


@pytest.mark.slow
def test_without_its_guard_the_alignment_copies_the_student():
    """The loss vanishes though the student knows nothing; the guard keeps both."""
    copied, lost = train_alignment("stopgrad_query")
    apart, kept = train_alignment("reconstruct_teacher")
    assert copied < 0.1, copied
    assert lost < 0.5, lost
    assert apart > 1.0, apart
    assert kept > 0.8, kept


def test_alignment_refuses_what_it_cannot_do():
    student, teacher = np.ones((1, 3, 5)), np.ones((1, 4, 2))
    with pytest.raises(ValueError, match="2 heads do not divide"):
        MultiHeadAlignment(num_heads=2).init(KEY, student, teacher)
    wide = init(MultiHeadAlignment(num_heads=2, head_dim=3), student, teacher)
    assert wide["params"]["out"]["kernel"].shape == (2, 3, 5)


LAYERS = list(draw(4, 3, 5, 6, seed=2))


def route(params=None, mask=None, **options):
    module = LayerRouter(**options)
    if params is None:
        params = init(module, LAYERS)
    return jax.jit(module.apply)(params, LAYERS, mask), params


def test_router_equals_numpy():
    _, params = route(hidden=8, temperature=2.0)
    p = jax.tree.map(np.asarray, params["params"])
    p["bias"] = np.arange(4.0)
    out, _ = route({"params": p}, hidden=8, temperature=2.0)
    layers = np.stack(LAYERS, 1).astype(np.float64)  # [b, l, n, d]
    pooled = oracles.standardise(layers.mean(2))
    x = pooled @ p["hidden"]["kernel"] + p["hidden"]["bias"]
    normal = np.vectorize(lambda v: 0.5 * (1 + jax.scipy.special.erf(v / 2**0.5)))
    x = x * normal(x)
    scores = (x @ p["score"]["kernel"] + p["score"]["bias"])[..., 0] + p["bias"]
    alpha = oracles.softmax(scores / 2)
    np.testing.assert_allclose(out["alpha"], alpha, rtol=1e-4)
    want = (alpha[..., None, None] * oracles.standardise(layers)).sum(1)
    np.testing.assert_allclose(out["mixed"], want, rtol=1e-4, atol=1e-5)


def test_router_of_dlink_has_its_parameters():
    shapes = jax.eval_shape(LayerRouter().init, KEY, [jnp.zeros((1, 2, 200))] * 13)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 12_942


def test_a_router_of_zeros_is_the_mean_and_one_layer_can_win():
    out, params = route()
    zeros = jax.tree.map(np.zeros_like, params)
    got, _ = route(zeros)
    mean, fixed = route(mode="mean")
    np.testing.assert_allclose(got["mixed"], mean["mixed"], rtol=1e-6)
    assert not jax.tree.leaves(fixed)
    # Without jit: fused operations round otherwise than `standardise` alone.
    run = lambda params, **options: LayerRouter(**options).apply(params, LAYERS)
    last = run(fixed, mode="last")
    np.testing.assert_array_equal(last["alpha"], [[0, 0, 0, 1]] * 3)
    np.testing.assert_array_equal(last["mixed"], standardise(LAYERS[-1]))
    zeros["params"]["bias"] = np.array([0.0, 0.0, 1e4, 0.0], np.float32)
    np.testing.assert_array_equal(run(zeros)["mixed"], standardise(LAYERS[2]))
    raw, _ = route(mode="last", normalise=False)
    np.testing.assert_array_equal(raw["mixed"], LAYERS[-1])
    assert np.ptp(out["alpha"], axis=0).max() > 1e-3


def test_static_weights_are_alike_for_all_examples():
    params = {"params": {"bias": np.arange(4, dtype=np.float32)}}
    out, _ = route(params, mode="static_softmax")
    want = oracles.softmax(np.arange(4.0))
    np.testing.assert_allclose(out["alpha"], [want] * 3, rtol=1e-6)
    module = LayerRouter(mode="static_softmax")
    cold = module.apply(params, LAYERS, temperature=0.5)
    np.testing.assert_allclose(cold["alpha"][0], oracles.softmax(np.arange(4) * 2.0))


@pytest.mark.slow
def test_the_router_learns_from_its_probe_and_entropy_alone():
    module = LayerRouter(num_classes=2)
    params = module.init(KEY, LAYERS)

    def gradient(read, module=module):
        return jax.grad(lambda p: jnp.sum(read(module.apply(p, LAYERS))))(params)

    label = jnp.array([0, 1, 0])
    assert total(gradient(lambda out: out["mixed"] ** 2)) == 0
    probe = gradient(lambda out: cross_entropy(out["probe"], label))["params"]
    assert all(total(probe[k]) > 0 for k in ("bias", "hidden", "score", "probe"))
    entropy = gradient(lambda out: negative_entropy(out["alpha"]))["params"]
    assert total(entropy["hidden"]) > 0
    assert total(entropy["probe"]) == 0
    open_module = LayerRouter(num_classes=2, stop_gradient=False)
    assert total(gradient(lambda out: out["mixed"] ** 3, open_module)) > 0


@pytest.mark.slow
def test_the_mimic_loss_alone_picks_the_easy_layer_and_the_probe_the_telling_one():
    """Layer 0 is near what the student can do; layer 1 holds the label."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 128)
    easy = rng.normal(size=(128, 3, 6))
    telling = rng.normal(size=(128, 3, 6)) + 0.6 * (label[:, None, None] - 0.5) * [
        *(1, -1, 1, -1, 1, -1)
    ]
    layers = [jnp.asarray(x, jnp.float32) for x in (easy, telling)]
    student = standardise(layers[0])

    def weights(terms, **options):
        module = LayerRouter(num_classes=2, **options)
        params, tx = module.init(KEY, layers), optax.adam(0.03)

        def loss(params):
            out = module.apply(params, layers)
            return jnp.mean(terms(out))

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        run = jax.jit(lambda c: jax.lax.scan(step, c, None, length=60)[0])
        params, _ = run((params, tx.init(params)))
        return module.apply(params, layers)["alpha"].mean(0)

    mimic = lambda out: fitnet(student, out["mixed"], normalise=True)
    collapsed = weights(mimic, stop_gradient=False)
    assert collapsed[0] > 0.8, collapsed
    probed = weights(lambda out: mimic(out) + cross_entropy(out["probe"], label))
    assert probed[1] > 0.6, probed


def test_a_router_ignores_masked_tokens():
    keep = np.array([True, True, False, True, False])
    module = LayerRouter(num_classes=2)
    params = init(module, LAYERS)
    run = jax.jit(module.apply)
    want = run(params, [x[:, keep] for x in LAYERS])
    dirty = [np.where(keep[:, None], x, np.nan) for x in LAYERS]
    got = run(params, dirty, np.stack([keep] * 3))
    np.testing.assert_allclose(got["alpha"], want["alpha"], rtol=1e-5)
    np.testing.assert_allclose(got["probe"], want["probe"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["mixed"][:, keep], want["mixed"], rtol=1e-5)


@pytest.mark.parametrize(("num", "n"), [(1, 5), (2, 5), (3, 7), (4, 4)])
def test_pooling_over_stretches(num, n):
    """Each token is a unit of length; a stretch averages what lies in it."""
    x = draw(2, n, 3)
    fine = np.repeat(x, num, axis=1).reshape(2, num, n, 3).mean(2)
    pool = jax.jit(pool_tokens, static_argnums=1)
    np.testing.assert_allclose(pool(x, num), fine, rtol=1e-5, atol=1e-6)
    keep = np.zeros(n + 3, bool)
    keep[np.arange(n) + np.minimum(np.arange(n), 3)] = True
    held = np.full((2, len(keep), 3), np.nan, np.float32)
    held[:, keep] = x
    got = pool(held, num, np.stack([keep] * 2))
    np.testing.assert_allclose(got, fine, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pool(held, num, np.zeros((2, len(keep)), bool)), 0)


@pytest.mark.parametrize("hidden", [None, 5])
def test_a_projector_maps_widths_alone(hidden):
    x = draw(2, 3, 4)
    module = TokenProjector(7, hidden)
    params = init(module, x)
    run = jax.jit(module.apply)
    out = run(params, x)
    assert out.shape == (2, 3, 7)
    np.testing.assert_allclose(out[:, 1], run(params, x[:, 1]), rtol=1e-5)
    assert ("hidden" in params["params"]) == (hidden is not None)


def test_a_compressed_sequence_is_decoded_to_the_mixture():
    layers, compressed = [draw(2, 6, 5, seed=i) for i in range(2)], draw(2, 2, 3)
    module = RoutedTarget(LayerRouter(mode="mean"), num_patches=3, decode=True)
    variables = init(module, compressed, *layers)
    assert variables["params"].keys() == {"decode"}
    out = jax.jit(module.apply)(variables, compressed, *layers)
    mixed = (standardise(layers[0]) + standardise(layers[1])) / 2
    np.testing.assert_allclose(out["mixed"], mixed, rtol=1e-4, atol=1e-5)
    # Two channels of three patches; a step of two covers a patch and a half.
    patches = np.asarray(mixed).reshape(2, 2, 3, 5).mean(1)
    want = np.stack(
        [patches[:, 0] + patches[:, 1] / 2, patches[:, 1] / 2 + patches[:, 2]], axis=1
    )
    np.testing.assert_allclose(out["target"], want / 1.5, rtol=1e-4, atol=1e-5)
    kernel, bias = (variables["params"]["decode"][k] for k in ("kernel", "bias"))
    np.testing.assert_allclose(
        out["decoded"], compressed @ kernel + bias, rtol=1e-4, atol=1e-5
    )
    some = jax.jit(module.clone(channels=(1,)).apply)(variables, compressed, *layers)
    np.testing.assert_array_equal(some["mixed"], out["mixed"][:, 3:])
    with pytest.raises(ValueError, match="6 tokens are no grid of 4 patches"):
        module.clone(num_patches=4).apply(variables, compressed, *layers)
