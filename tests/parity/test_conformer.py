import jax
import numpy as np
import pytest

from eegkd.models import Conformer, ConformerConfig

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module", params=["many queries", "few queries"])
def case(request):
    """Both models at the same random weights, on a batch that takes either form."""
    from experiments.benchmarks.torch_conformer import TorchConformer, jax_parameters

    cfg = ConformerConfig(
        n_chans=5, dim=16, depth=3, kernel=7, num_heads=2, num_prompts=3, dropout=0.0
    )
    torch.manual_seed(0)
    model = TorchConformer(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = 6 if request.param == "many queries" else 2
    x = torch.randn(batch, 5, 96)
    params = jax.tree.map(np.array, jax_parameters(model))
    return cfg, model, x, params, jax_parameters


def test_every_layer_agrees(case):
    cfg, model, x, params, _ = case
    with torch.no_grad():
        want = model(x)
    with jax.default_matmul_precision("float32"):
        got = jax.jit(Conformer(cfg).apply)({"params": params}, x.numpy())
    assert set(got) == set(want)
    for name, tensor in want.items():
        error = np.abs(got[name] - tensor.numpy()).max()
        assert error < 1e-5 * float(tensor.abs().max()), name


def test_every_gradient_agrees(case):
    cfg, model, x, params, jax_parameters = case
    weights = np.random.default_rng(0).normal(size=(len(x), cfg.dim)).astype("float32")
    model.zero_grad()
    (model(x)["pooled"] * torch.tensor(weights)).sum().backward()
    want = jax_parameters(model, gradients=True)

    def loss(params):
        out = Conformer(cfg).apply({"params": params}, x.numpy(), train=True)
        return (out["pooled"] * weights).sum()

    with jax.default_matmul_precision("float32"):
        got = jax.jit(jax.grad(loss))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(got):
        other = want
        for part in path:
            other = other[part.key]
        scale = np.abs(other).max()
        name = jax.tree_util.keystr(path)
        assert np.abs(leaf - other).max() < 2e-4 * scale + 1e-5, name
