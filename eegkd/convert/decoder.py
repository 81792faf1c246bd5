"""LLaMA and Qwen2: their `config.json`, and a table of their tensors."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eegkd.convert.hf_config import Section, check_type, open_config, refuse_problems
from eegkd.convert.hf_folder import (
    Checkpoint,
    LazyArray,
    are_equal,
    locate,
    read_headers,
)
from eegkd.convert.tables import Family, Weight, linear, stacked
from eegkd.errors import InputError

_HEAD = "lm_head.weight"
# Defaults of transformers for missing fields, by model.
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
}
_THETA = 10000.0


def load_decoder(
    folder: str | Path, model: str
) -> tuple[dict[str, Any], list[LazyArray]]:
    """Finds the weights of a folder of `config.json` and safetensors files.

    Args:
        folder: Folder of a `LlamaForCausalLM` or `Qwen2ForCausalLM`.
        model: "llama" or "qwen2".

    Returns:
        Keyword arguments of `models.DecoderConfig`, and the parameters by path, which
        are not read yet.

    Raises:
        InputError: If a file is missing or broken, the model is another or has what
            `Decoder` has not, or names or shapes differ.
    """
    config = open_config(folder)
    check_type(folder, config.get("model_type"), (model,))
    fields = decoder_fields(config, model)
    refuse_problems(folder, config)
    checkpoint = read_headers(folder)
    ignored = tied_names(checkpoint, str, _HEAD) if fields["tied"] else ()
    return fields, locate(checkpoint, decoder_table(fields), ignored=ignored)


def decoder_fields(config: Section, model: str) -> dict[str, Any]:
    """Returns a decoder's sizes, as fields of `models.DecoderConfig`.

    Args:
        config: Section of the decoder; faults are added to its problems.
        model: "llama" or "qwen2".
    """
    default = _DEFAULTS[model]
    config.one_of("hidden_act", ("silu",), "silu")
    if model == "llama":
        config.one_of("attention_bias", (False,), False)
        config.one_of("mlp_bias", (False,), False)
    else:
        _refuse_window(config)
    dim = config.size("hidden_size", default["hidden_size"])
    heads = config.size("num_attention_heads", default["num_attention_heads"])
    shared = config.size("num_key_value_heads", heads)
    config.divides(shared, heads, "num_key_value_heads and num_attention_heads")
    return {
        "vocab_size": config.size("vocab_size", default["vocab_size"]),
        "dim": dim,
        "depth": config.size("num_hidden_layers", default["num_hidden_layers"]),
        "num_heads": heads,
        "num_kv_heads": shared,
        "head_dim": config.size("head_dim", max(1, dim // heads)),
        "ffn_dim": config.size("intermediate_size", default["intermediate_size"]),
        "eps": config.number("rms_norm_eps", 1e-6),
        "rope_theta": _rope_theta(config),
        "qkv_bias": model == "qwen2",
        "tied": bool(config.get("tie_word_embeddings", False)),
    }


def _rope_theta(config: Section) -> float:
    """Reads theta, which moved into `rope_parameters`; other rotations are refused."""
    theta = config.number("rope_theta", _THETA)
    for name in ("rope_scaling", "rope_parameters"):
        rope = config.get(name, {})
        if not isinstance(rope, Mapping):
            config.problems.append(f"{config.where}{name} has to be an object")
            continue
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            config.problems.append(
                f"{config.where}{name} asks for {kind!r}: scaled rotary positions are "
                "not supported"
            )
        inner = Section(rope, f"{config.where}{name}.", config.problems)
        theta = inner.number("rope_theta", theta)
        for section in (inner, config):
            section.one_of("partial_rotary_factor", (1.0,), 1.0)
    return theta


def _refuse_window(config: Section) -> None:
    """Refuses a sliding window that would hide anything within the context."""
    window = config.get("sliding_window", 4096)
    depth = config.get("num_hidden_layers", _DEFAULTS["qwen2"]["num_hidden_layers"])
    from_layer = config.get("max_window_layers", 28)
    kinds = config.get("layer_types")
    is_used = config.get("use_sliding_window", False) and (
        from_layer < depth if kinds is None else "sliding_attention" in kinds
    )
    if is_used and window < config.get("max_position_embeddings", 32768):
        config.problems.append(
            f"{config.where}use_sliding_window is on, with a window of {window} tokens "
            "in some layers: sliding windows are not supported"
        )


def decoder_table(fields: Mapping[str, Any], stem: str = "") -> list[Weight]:
    """Lists a decoder's tensors."""
    d, ffn, bias = fields["dim"], fields["ffn_dim"], fields["qkv_bias"]
    query, key = (
        fields[name] * fields["head_dim"] for name in ("num_heads", "num_kv_heads")
    )
    model, layer = f"{stem}model.", f"{stem}model.layers.{{}}."
    sizes = {
        "query": ("self_attn.q_proj", query, d, bias),
        "key": ("self_attn.k_proj", key, d, bias),
        "value": ("self_attn.v_proj", key, d, bias),
        "out": ("self_attn.o_proj", d, query, False),
        "gate": ("mlp.gate_proj", ffn, d, False),
        "up": ("mlp.up_proj", ffn, d, False),
        "down": ("mlp.down_proj", d, ffn, False),
    }
    table = [
        Weight(
            ("embed", "embedding"),
            f"{model}embed_tokens.weight",
            (fields["vocab_size"], d),
        ),
        _scale(("layers", "input_norm"), f"{layer}input_layernorm", d),
        _scale(("layers", "post_norm"), f"{layer}post_attention_layernorm", d),
        _scale(("norm",), f"{model}norm", d),
    ]
    for ours, (theirs, out, inner, has_bias) in sizes.items():
        name = f"{layer}{theirs}"
        table += linear(("layers", ours), name, out, inner, bias=has_bias)
    if not fields["tied"]:
        head = f"{stem}{_HEAD}".removesuffix(".weight")
        table += linear(("lm_head",), head, fields["vocab_size"], d, bias=False)
    return stacked(table, fields["depth"])


def _scale(path: tuple[str, ...], name: str, features: int) -> Weight:
    return Weight((*path, "scale"), f"{name}.weight", (features,))


def tied_names(
    checkpoint: Checkpoint, rename: Callable[[str], str], head: str
) -> tuple[str, ...]:
    """Allows a head with tied embeddings, if it repeats them.

    Args:
        checkpoint: Checkpoint from `read_headers`.
        rename: As for `locate`.
        head: Name of the head in the table.

    Returns:
        Patterns for `locate` to ignore.

    Raises:
        InputError: If the head has values of its own: the configuration is wrong.
    """
    embed = head.replace("lm_head", "model.embed_tokens")
    found = {rename(s.name): s for s in checkpoint.tensors.values()}
    if head in found and embed in found and not are_equal(found[head], found[embed]):
        raise InputError(
            f"{checkpoint.source}: config.json says tie_word_embeddings, and "
            f"{found[head].name} has other values than {found[embed].name}: set it to "
            "false there, or remove the one that is not meant."
        )
    return (head,)


def decoder_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `config.json` of a decoder.

    Args:
        fields: Fields of `models.DecoderConfig`; biases make it a Qwen2.
    """
    is_qwen2 = fields["qkv_bias"]
    return {
        "architectures": ["Qwen2ForCausalLM" if is_qwen2 else "LlamaForCausalLM"],
        "model_type": "qwen2" if is_qwen2 else "llama",
        "vocab_size": fields["vocab_size"],
        "hidden_size": fields["dim"],
        "num_hidden_layers": fields["depth"],
        "num_attention_heads": fields["num_heads"],
        "num_key_value_heads": fields["num_kv_heads"],
        "head_dim": fields["head_dim"],
        "intermediate_size": fields["ffn_dim"],
        "hidden_act": "silu",
        "rms_norm_eps": fields["eps"],
        # Where transformers 5 reads theta, and where older versions do.
        "rope_parameters": {"rope_type": "default", "rope_theta": fields["rope_theta"]},
        "rope_theta": fields["rope_theta"],
        "tie_word_embeddings": fields["tied"],
    }


DECODER = Family(decoder_table, decoder_config)
