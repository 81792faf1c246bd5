"""LLaMA and Qwen2 against transformers, LoRA against PEFT, at random weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.models import (
    Decoder,
    DecoderConfig,
    Decoding,
    apply_adapted,
    generate,
    score_continuations,
)

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 44,
    "max_position_embeddings": 64,
    "attn_implementation": "eager",
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
THEIRS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
MASK = np.arange(9) >= np.array([[0], [3], [8]])
IDS = np.where(MASK, np.random.default_rng(0).integers(3, 60, (3, 9)), 0)


def ours(model, config):
    """The decoder of a PyTorch model's sizes, and its weights."""
    state = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    stack = lambda name: np.stack([state[f"model.layers.{i}.{name}"] for i in range(3)])
    bias = "model.layers.0.self_attn.q_proj.bias" in state
    layers = {
        "input_norm": {"scale": stack("input_layernorm.weight")},
        "post_norm": {"scale": stack("post_attention_layernorm.weight")},
    }
    for name, their in THEIRS.items():
        layers[name] = {"kernel": stack(f"{their}.weight").swapaxes(1, 2)}
        if bias and name in ("query", "key", "value"):
            layers[name]["bias"] = stack(f"{their}.bias")
    params = {
        "embed": {"embedding": state["model.embed_tokens.weight"]},
        "layers": layers,
        "norm": {"scale": state["model.norm.weight"]},
    }
    if not config.tie_word_embeddings:
        params["lm_head"] = {"kernel": state["lm_head.weight"].T}
    cfg = DecoderConfig(
        vocab_size=60,
        dim=32,
        depth=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        ffn_dim=44,
        eps=config.rms_norm_eps,
        rope_theta=config.rope_parameters["rope_theta"],
        qkv_bias=bias,
        tied=config.tie_word_embeddings,
        layers_out=(0, 1, 2),
    )
    return Decoder(cfg), params


def perturb(model, *, trained_only=False):
    """Moves every parameter: norms and biases begin at one and zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if trained_only and not parameter.requires_grad:
                continue
            parameter.add_(0.2 * torch.randn_like(parameter))


def make(kind):
    torch.manual_seed(0)
    name, _, tied = kind.partition("-")
    rope = {"rope_type": "default", "rope_theta": 500.0}
    options = {"rope_parameters": rope, "tie_word_embeddings": tied == "tied"}
    if name == "llama":
        config = transformers.LlamaConfig(**SIZES, **options, rms_norm_eps=1e-5)
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.Qwen2Config(**SIZES, **options, rms_norm_eps=1e-6)
        model = transformers.Qwen2ForCausalLM(config)
    perturb(model)
    return model.eval(), config


@pytest.fixture(scope="module", params=["llama", "qwen2-tied", "qwen2-untied"])
def pair(request):
    model, config = make(request.param)
    return model, *ours(model, config)


def close(got, want, mask=None):
    got, want = np.asarray(got), want.detach().numpy()
    if mask is not None:
        got, want = got[mask], want[mask]
    return np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_every_layer_agrees(pair):
    model, decoder, params = pair
    last = []
    handle = model.model.layers[2].register_forward_hook(
        lambda module, inputs, output: last.append(output)
    )
    positions = np.maximum(MASK.cumsum(1) - 1, 0)
    with torch.no_grad():
        want = model(
            torch.tensor(IDS),
            attention_mask=torch.tensor(MASK.astype(np.int64)),
            position_ids=torch.tensor(positions),
            output_hidden_states=True,
        )
    handle.remove()
    with jax.default_matmul_precision("float32"):
        got = jax.jit(decoder.apply)({"params": params}, IDS, MASK)
    *inner, normed = want.hidden_states
    block = last[0] if torch.is_tensor(last[0]) else last[0][0]
    names = ("embed", "block_0", "block_1", "block_2", "tokens", "logits")
    hidden = (*inner, block, normed, want.logits)
    for name, theirs in zip(names, hidden, strict=True):
        assert close(got[name], theirs, MASK), name


def test_greedy_tokens_are_equal(pair):
    model, decoder, params = pair
    with torch.no_grad():
        want = model.generate(
            torch.tensor(IDS),
            attention_mask=torch.tensor(MASK.astype(np.int64)),
            max_new_tokens=12,
            do_sample=False,
        ).numpy()[:, 9:]
    with jax.default_matmul_precision("float32"):
        how = Decoding(max_new_tokens=12, stop_ids=(2,))
        got = generate(decoder, params, IDS, MASK, decoding=how)
    np.testing.assert_array_equal(got.tokens[:, : want.shape[1]], want)
    ends = [(row == 2).argmax() + 1 if 2 in row else 12 for row in want]
    np.testing.assert_array_equal(got.lengths, ends)


def test_scores_of_labels_agree(pair):
    model, decoder, params = pair
    labels = np.array([[5, 9, 11], [5, 8, 11]])
    with jax.default_matmul_precision("float32"):
        got = score_continuations(decoder, params, IDS, MASK, continuations=labels)
    for i, j in np.ndindex(3, 2):
        text = np.concatenate([IDS[i][MASK[i]], labels[j]])
        with torch.no_grad():
            logs = model(torch.tensor(text[None])).logits[0].log_softmax(-1).numpy()
        want = sum(logs[len(text) - 4 + t, labels[j, t]] for t in range(3))
        np.testing.assert_allclose(got[i, j], want, rtol=1e-5)


# PEFT asks transformers for a name that goes away in its next version.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
@pytest.mark.parametrize("remat", ["none", "full"])
def test_gradients_of_adapters_are_pefts(remat):
    peft = pytest.importorskip("peft")
    model, config = make("qwen2-tied")
    decoder, base = ours(model, config)
    lora = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=[n.split(".")[1] for n in THEIRS.values()]
    )
    adapted = peft.get_peft_model(model, lora)
    perturb(adapted, trained_only=True)
    logits = adapted(
        torch.tensor(IDS), attention_mask=torch.tensor(MASK.astype(np.int64))
    ).logits
    target, kept = IDS[:, 1:], MASK[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), torch.tensor(target), reduction="none"
    )
    total = (losses * torch.tensor(kept)).sum()
    total.backward()

    def collect(read):
        named = dict(adapted.named_parameters())
        stem = "base_model.model.model.layers.{}.{}.lora_{}.default.weight"
        return {
            "layers": {
                ours: {
                    f"lora_{way}": np.stack(
                        [read(named[stem.format(i, their, letter)]).T for i in range(3)]
                    )
                    for way, letter in (("down", "A"), ("up", "B"))
                }
                for ours, their in THEIRS.items()
            }
        }

    adapters = collect(lambda p: p.detach().numpy())
    module = Decoder(dataclasses.replace(decoder.cfg, remat=remat))

    def loss(adapters, base):
        out = apply_adapted(module, base, adapters, IDS, MASK, alpha=6.0)
        logs = jax.nn.log_softmax(out["logits"][:, :-1])
        chosen = jnp.take_along_axis(logs, target[..., None], axis=-1)[..., 0]
        return -jnp.sum(chosen * kept)

    with jax.default_matmul_precision("float32"):
        value, grads = jax.jit(jax.value_and_grad(loss))(adapters, base)
        jaxpr = jax.make_jaxpr(jax.grad(loss))(adapters, base)
    np.testing.assert_allclose(value, total.item(), rtol=1e-5)
    wants = collect(lambda p: p.grad.numpy())
    paths = jax.tree_util.tree_leaves_with_path(grads)
    for (path, got), want in zip(paths, jax.tree.leaves(wants), strict=True):
        assert np.abs(got - want).max() < 1e-4 * np.abs(want).max(), path
    frozen = {leaf.shape[-2:] for leaf in jax.tree.leaves(base) if leaf.ndim > 1}
    assert not frozen & set(products(jaxpr.jaxpr)), "a frozen part got a gradient"
    both = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(adapters, base)
    assert frozen & set(products(both.jaxpr)), "the check sees no gradient at all"


def products(jaxpr):
    """Shapes of all matrix products, those within loops too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield from (v.aval.shape for v in equation.outvars)
        for value in equation.params.values():
            for part in value if isinstance(value, (tuple, list)) else (value,):
                part = getattr(part, "jaxpr", part)
                if hasattr(part, "eqns"):
                    yield from products(part)
