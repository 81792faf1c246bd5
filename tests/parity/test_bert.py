import jax
import numpy as np
import pytest

from eegkd.models import load_pretrained

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A transformers BertModel with perturbed weights, and ours from its file."""
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=20,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("bert")
    model.save_pretrained(folder)
    return model, load_pretrained("bert", folder)


def test_every_layer_agrees(pair):
    model, (module, variables) = pair
    ids = np.random.default_rng(0).integers(0, 50, (3, 9))
    mask = np.arange(9) < np.array([[9], [5], [7]])
    with torch.no_grad():
        want = model(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            output_hidden_states=True,
        )
    with jax.default_matmul_precision("float32"):
        got = jax.jit(module.apply)(variables, ids, mask)
    names = ["embed", "block_0", "block_1", "block_2"]
    for name, hidden in zip(names, want.hidden_states, strict=True):
        error = np.abs(got[name] - hidden.numpy())[mask].max()
        assert error < 1e-5 * float(hidden.abs().max()), name
    pooled = want.pooler_output.numpy()
    np.testing.assert_allclose(got["pooled"], pooled, atol=1e-5)
