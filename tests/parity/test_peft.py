"""PEFT's adapters: what it writes is read, and what we write it reads."""

import jax
import numpy as np
import pytest

from eegkd.errors import InputError
from eegkd.models import (
    LoraConfig,
    apply_adapted,
    find_linears,
    init_adapters,
    load_adapters,
    load_pretrained,
    save_adapters,
)
from tests.support.vlm_models import LLAMA, llava, perturbed

pytestmark = [
    pytest.mark.parity,
    # PEFT asks transformers for something by its old name.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated"),
]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

IDS = np.random.default_rng(0).integers(3, LLAMA["vocab_size"], (2, 7))


def decoder(kind, **options):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**LLAMA | options)
    return perturbed(getattr(transformers, f"{kind}ForCausalLM")(config))


@pytest.fixture(scope="module", params=["Llama", "Qwen2"])
def base(request, tmp_path_factory):
    """A folder of a model, and ours from it."""
    folder = tmp_path_factory.mktemp("base")
    decoder(request.param).save_pretrained(folder)
    return folder, load_pretrained(request.param.lower(), folder)


def adapted(model, targets, **options):
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=targets, **options)
    model = peft.get_peft_model(model, config)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


def state_of(model):
    return peft.get_peft_model_state_dict(model, save_embedding_layers=False)


def our_logits(module, variables, adapters, alpha):
    with jax.default_matmul_precision("float32"):
        call = jax.jit(lambda v, a: apply_adapted(module, v, a, IDS, alpha=alpha))
        return call(variables["params"], adapters)["logits"]


def assert_close(got, want):
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize(
    "targets",
    [["q_proj", "v_proj"], "all-linear", r".*\.mlp\.(up|down)_proj", ["lm_head"]],
)
def test_adapters_of_peft_act_the_same(base, tmp_path, targets):
    folder, (module, variables) = base
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    before = logits(model)
    model = adapted(model, targets, lora_dropout=0.25)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    config, adapters = load_adapters(tmp_path, module)
    assert (config.rank, config.alpha, config.dropout) == (3, 7, 0.25)
    want = logits(model)
    assert np.abs(want - before).max() > 0.01 * np.abs(before).max()
    assert_close(our_logits(module, variables, adapters, config.alpha), want)


@pytest.mark.parametrize(
    "targets", [("layers/*",), ("layers/query", "layers/gate"), ("lm_head",)]
)
def test_our_adapters_act_the_same_in_peft(base, tmp_path, targets):
    folder, (module, variables) = base
    config = LoraConfig(rank=2, alpha=5.0, targets=targets)
    linears = find_linears(module, IDS)
    key = jax.random.key(0)
    adapters = init_adapters(key, variables["params"], linears, config)
    adapters = jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(key, leaf.shape), adapters
    )
    save_adapters(tmp_path, module, adapters, config, base=str(folder))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model = peft.PeftModel.from_pretrained(model, tmp_path).eval()
    assert_close(our_logits(module, variables, adapters, 5.0), logits(model))
    # Nothing was drawn anew: every tensor of PEFT's is one that we wrote.
    state = state_of(model)
    assert sum(t.numel() for t in state.values()) == sum(
        leaf.size for leaf in jax.tree.leaves(adapters)
    )
    jax.tree.map(
        np.testing.assert_array_equal, load_adapters(tmp_path, module)[1], adapters
    )


@pytest.mark.parametrize(
    ("targets", "paths"),
    [
        (["q_proj"], {"vision/layers/query", "language/layers/query"}),
        (r".*language_model.*\.down_proj", {"language/layers/down"}),
        (["linear_1", "lm_head"], {"projector/linear_1", "language/lm_head"}),
    ],
)
def test_adapters_of_llava_go_both_ways(tmp_path, targets, paths):
    base = llava("Llava")
    base.save_pretrained(tmp_path / "base")
    module, _ = load_pretrained("llava", tmp_path / "base")
    model = adapted(base, targets)
    model.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    config, adapters = load_adapters(tmp_path / "theirs", module)
    assert set(config.targets) == paths
    save_adapters(tmp_path / "ours", module, adapters, config)
    fresh = transformers.LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "base"
    )
    again = peft.PeftModel.from_pretrained(fresh, tmp_path / "ours")
    got, want = state_of(again), state_of(model)
    assert got.keys() == want.keys()
    for name, tensor in got.items():
        assert torch.equal(tensor, want[name]), name


def test_copies_of_the_head_beside_its_adapters_are_refused(tmp_path):
    """They may have been trained; PEFT writes them by default, and says so."""
    base = llava("Llava")
    base.save_pretrained(tmp_path / "base")
    module, _ = load_pretrained("llava", tmp_path / "base")
    with pytest.warns(UserWarning, match="save_embedding_layers"):
        adapted(base, ["lm_head"]).save_pretrained(tmp_path / "theirs")
    with pytest.raises(InputError, match="itself, .*lm_head.*embedding_layers=False"):
        load_adapters(tmp_path / "theirs", module)
