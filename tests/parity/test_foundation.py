"""CBraMod and LaBraM against braindecode's, at random perturbed weights."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from eegkd.models import (
    CBraMod,
    CBraModConfig,
    Labram,
    LabramConfig,
    load_pretrained,
)
from tests.support.braindecode_models import braindecode_module

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")

CHANNELS = ("Fz", "C3", "P8", "O1", "T7")
NUM_PATCHES = 3


def perturbed(model):
    """Zero biases, unit scales and small tokens would hide mistakes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def keep_outputs(modules):
    """Keeps what named modules return, in their order."""
    kept = {}
    for name, module in modules.items():
        module.register_forward_hook(
            lambda _, __, out, name=name: kept.__setitem__(name, out)
        )
    return kept


def small_cbramod(**options):
    sizes = ((4, 49, 25, 24, (2, 4)), (4, 3, 1, 1, (2, 4)), (4, 3, 1, 1, (2, 4)))
    torch.manual_seed(0)
    model = braindecode_module("cbramod").CBraMod(
        n_outputs=2,
        n_chans=len(CHANNELS),
        n_times=200 * NUM_PATCHES,
        sfreq=200,
        n_layer=3,
        nhead=4,
        dim_feedforward=24,
        channels_kernel_stride_padding_norm=sizes,
        **options,
    )
    return perturbed(model)


def small_labram(**options):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="LABRAM_CHANNEL_ORDER"):
        model = braindecode_module("labram").Labram(
            n_outputs=2,
            chs_info=[{"ch_name": name} for name in CHANNELS],
            n_times=200 * NUM_PATCHES,
            sfreq=200,
            num_layers=3,
            mlp_ratio=0.5,
            **options,
        )
    return perturbed(model)


def run_cbramod(model, x):
    blocks = {f"block_{i}": layer for i, layer in enumerate(model.encoder.layers)}
    kept = keep_outputs({"embed": model.patch_embedding, **blocks})
    kept["reconstruction"] = model(x)
    want = {name: y.flatten(1, 2) for name, y in kept.items()}
    return want | {"pooled": want["block_2"].mean(1)}


def run_labram(model, x):
    blocks = {f"block_{i}": block for i, block in enumerate(model.blocks)}
    kept = keep_outputs({"embed": model.pos_drop, **blocks})
    names = list(CHANNELS)
    every = model(x, return_features=True, ch_names=names)
    by_class_token = model.fc_norm is None
    model.final_layer = torch.nn.Identity()
    want = {name: y[:, 1:] for name, y in kept.items()}
    want |= {"tokens": every["features"], "cls": every["cls_token"]}
    pooled = (
        want["cls"]
        if by_class_token
        else model.forward_features(x, input_chans=[0, *channel_rows(names)])
    )
    return want | {"pooled": pooled}


def channel_rows(names):
    order = braindecode_module("labram").LABRAM_CHANNEL_ORDER
    return [order.index(name.upper()) + 1 for name in names]


CASES = {
    "cbramod": ("cbramod", small_cbramod, run_cbramod, {"return_encoder_output": True}),
    "labram": ("labram", small_labram, run_labram, {"use_mean_pooling": True}),
    "labram cls": ("labram", small_labram, run_labram, {}),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """Outputs and gradients of both models."""
    name, make, run, options = CASES[request.param]
    model = make(**options)
    folder = tmp_path_factory.mktemp(name)
    model.save_pretrained(folder)
    x = (0.5 * torch.randn(2, len(CHANNELS), 200 * NUM_PATCHES)).requires_grad_()
    want = run(model, x)
    rng = np.random.default_rng(0)
    ends = [n for n in ("tokens", "reconstruction", "pooled") if n in want]
    weights = {n: rng.normal(size=want[n].shape).astype(np.float32) for n in ends}
    sum((want[n] * torch.tensor(w)).sum() for n, w in weights.items()).backward()
    gradients = {
        n: (torch.zeros_like(p) if p.grad is None else p.grad).numpy()
        for n, p in model.named_parameters()
    }
    options = {"channels": CHANNELS, "num_patches": NUM_PATCHES, "scale": 1.0}
    module, variables = load_pretrained(name, folder, **options)
    (folder / "model.safetensors").unlink()
    save_file(gradients, folder / "gradients.safetensors")
    _, wanted = load_pretrained(name, folder, **options)

    @jax.jit
    @lambda f: jax.value_and_grad(f, (0, 1), has_aux=True)
    def both(variables, x):
        out = module.apply(variables, x)
        return sum((out[n] * w).sum() for n, w in weights.items()), out

    signal = x.detach().numpy()
    with jax.default_matmul_precision("float32"):
        (_, got), (gradient, by_signal) = both(variables, signal)
    want = {n: y.detach().numpy() for n, y in want.items()}
    return got, want, (gradient, by_signal), (wanted, x.grad.numpy())


def test_every_block_agrees(case):
    got, want, *_ = case
    assert set(want) | {"tokens"} == set(got)
    for name, tensor in want.items():
        error = np.abs(got[name] - tensor).max()
        assert error < 1e-5 * np.abs(tensor).max(), name


def test_every_gradient_agrees(case):
    *_, got, want = case
    total = norm_of(want)
    for path, leaf in jax.tree_util.tree_leaves_with_path(got):
        other = want
        for part in path:
            other = other[getattr(part, "key", getattr(part, "idx", None))]
        name = jax.tree_util.keystr(path)
        if name.endswith("['key_norm']['bias']"):
            # It adds the same to every key's score: softmax leaves rounding alone.
            assert norm_of((leaf, other)) < 1e-6 * total
        else:
            error = norm_of(np.asarray(leaf) - other)
            assert error <= 1e-4 * norm_of(other), name


def norm_of(tree):
    return np.sqrt(
        sum(float((np.asarray(a) ** 2).sum()) for a in jax.tree.leaves(tree))
    )


def test_hidden_patches_agree(tmp_path):
    model = small_cbramod(return_encoder_output=True)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    options = {"channels": CHANNELS, "num_patches": NUM_PATCHES, "scale": 1.0}
    module, variables = load_pretrained(
        "cbramod", tmp_path / "weights.pth", num_heads=4, groups=2, **options
    )
    x = torch.randn(2, len(CHANNELS), 200 * NUM_PATCHES)
    masked = torch.rand(2, len(CHANNELS), NUM_PATCHES) < 0.5
    with torch.no_grad():
        want = model(x, masked).flatten(1, 2).numpy()
    with jax.default_matmul_precision("float32"):
        got = jax.jit(module.apply)(variables, x.numpy(), masked.numpy())
    error = np.abs(got["reconstruction"] - want).max()
    assert error < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("project", [True, False])
def test_cbramod_counts(project):
    model = braindecode_module("cbramod").CBraMod(
        n_outputs=2, n_chans=2, n_times=400, return_encoder_output=True
    )
    left_out = () if project else ("proj_out.",)
    assert parameters_of(model, left_out) == count(
        CBraMod(CBraModConfig(num_patches=2, reconstruct=project))
    )


def test_labram_counts():
    with pytest.warns(UserWarning, match="LABRAM_CHANNEL_ORDER"):
        model = braindecode_module("labram").Labram(
            n_outputs=4, chs_info=[{"ch_name": "Cz"}], n_times=3000, sfreq=200
        )
    assert parameters_of(model, ("final_layer.",)) == count(Labram(LabramConfig()))


def parameters_of(model, left_out):
    named = model.named_parameters()
    return sum(p.numel() for name, p in named if not name.startswith(left_out))


def count(module):
    x = np.zeros((1, len(module.cfg.channels), 200 * module.cfg.num_patches))
    shapes = jax.eval_shape(module.init, jax.random.key(0), x.astype(np.float32))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
