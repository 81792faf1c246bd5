"""CLIP and its towers: their `config.json`, and tables of their tensors."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from eegkd.convert.hf_config import Section, check_type, open_config, refuse_problems
from eegkd.convert.hf_folder import LazyArray, locate, read_headers
from eegkd.convert.tables import (
    IMAGE_KERNEL,
    Family,
    Weight,
    linear,
    norm,
    stacked,
    under,
)
from eegkd.errors import InputError

Part: TypeAlias = Literal["both", "vision", "text"]

_TYPES: Mapping[str, Part] = {
    "clip": "both",
    "clip_vision_model": "vision",
    "clip_text_model": "text",
}
VISION, TEXT = "vision_model.", "text_model."
_BESIDE = {
    "vision": (f"{TEXT}*", "text_projection.*", "visual_projection.*", "logit_scale"),
    "text": (f"{VISION}*", "text_projection.*", "visual_projection.*", "logit_scale"),
}
# Beginnings of names in a file of one tower, since transformers 5.
_BARE = (
    "embeddings.",
    "encoder.",
    "pre_layrnorm.",
    "post_layernorm.",
    "final_layer_norm.",
)
# Defaults of transformers for missing fields.
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
}
_SIZES = {
    "dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn_dim": "intermediate_size",
}
_ACTIVATIONS = ("quick_gelu", "gelu")
# Files from before 2023 name this end token, which no text has: the highest id counts.
_OLD_END = 2


def load_clip(
    folder: str | Path, part: Part | None = None
) -> tuple[Part, dict[str, Any], list[LazyArray]]:
    """Finds the weights of a folder of `config.json` and safetensors files.

    Args:
        folder: Folder of a `CLIPModel`, or of one tower, projected or not.
        part: Tower to take of two; None takes what the files hold.

    Returns:
        The part, "both", "vision" or "text"; keyword arguments of
        `models.ClipConfig`, `ClipVisionConfig` or `ClipTextConfig`, those of the towers
        nested; the parameters by path, which are not read yet. A single tower comes
        without its projection.

    Raises:
        InputError: If there is no such part, a file is missing or broken, the model is
            another or has what `Clip` has not, or names or shapes differ.
    """
    if part not in (None, *CLIP_FAMILIES):
        raise InputError(
            f"part={part!r}: a CLIP has the parts {', '.join(CLIP_FAMILIES)}."
        )
    config = open_config(folder)
    check_type(folder, config.get("model_type"), _TYPES)
    there = _TYPES[config.values["model_type"]]
    part = part or there
    if there not in ("both", part):
        config.problems.append(
            f"model_type is of {there} alone, and {part} is asked: leave part out"
        )
    if there != "both":
        fields = _FIELDS[there](config)
    elif part == "both":
        fields: dict[str, Any] = {
            "vision": vision_fields(config.inner("vision_config")),
            "text": text_fields(config.inner("text_config")),
            "projection_dim": config.size("projection_dim", 512),
        }
    else:
        fields = _FIELDS[part](config.inner(f"{part}_config"))
    refuse_problems(folder, config)
    family, ignored = CLIP_FAMILIES[part], _BESIDE.get(part, ())
    arrays = locate(
        read_headers(folder),
        family.table(fields),
        rename=CLIP_FAMILIES[there].rename,
        ignored=ignored,
    )
    return part, fields, arrays


def vision_fields(config: Section) -> dict[str, Any]:
    """Returns a vision tower's sizes, as fields of `models.ClipVisionConfig`."""
    config.one_of("num_channels", (3,), 3)
    side, patch = config.size("image_size", 224), config.size("patch_size", 32)
    config.divides(patch, side, "patch_size and image_size")
    return _tower_fields(config, _VISION) | {"image_size": side, "patch_size": patch}


def text_fields(config: Section) -> dict[str, Any]:
    """Returns a text tower's sizes, as fields of `models.ClipTextConfig`."""
    end = config.size("eos_token_id", 49407)
    return _tower_fields(config, _TEXT) | {
        "vocab_size": config.size("vocab_size", 49408),
        "max_positions": config.size("max_position_embeddings", 77),
        "eos_id": None if end == _OLD_END else end,
    }


def _tower_fields(config: Section, defaults: Mapping[str, int]) -> dict[str, Any]:
    sizes = {ours: config.size(name, defaults[name]) for ours, name in _SIZES.items()}
    config.divides(
        sizes["num_heads"], sizes["dim"], "num_attention_heads and hidden_size"
    )
    return {
        **sizes,
        "eps": config.number("layer_norm_eps", 1e-5),
        "activation": config.one_of("hidden_act", _ACTIVATIONS, "quick_gelu"),
    }


def clip_table(fields: Mapping[str, Any]) -> list[Weight]:
    """Lists the tensors of both towers and their projections.

    Args:
        fields: Fields of `models.ClipConfig`, those of the towers nested.
    """
    vision, text, out = fields["vision"], fields["text"], fields["projection_dim"]
    project = ("visual_projection", vision), ("text_projection", text)
    return [
        *under(("vision",), vision_table(vision)),
        *under(("text",), text_table(text)),
        *(
            row
            for name, tower in project
            for row in linear((name,), name, out, tower["dim"], bias=False)
        ),
        Weight(("logit_scale",), "logit_scale", ()),
    ]


def vision_table(fields: Mapping[str, Any], stem: str = VISION) -> list[Weight]:
    """Lists a vision tower's tensors."""
    d, side = fields["dim"], fields["patch_size"]
    tokens, embeddings = 1 + (fields["image_size"] // side) ** 2, f"{stem}embeddings."
    return [
        Weight(("class_embedding",), f"{embeddings}class_embedding", (d,)),
        Weight(
            ("patch", "kernel"),
            f"{embeddings}patch_embedding.weight",
            (d, 3, side, side),
            IMAGE_KERNEL,
        ),
        _embedding("position", f"{embeddings}position_embedding", tokens, d),
        # So it is misspelt in every file.
        *norm(("pre_norm",), f"{stem}pre_layrnorm", d),
        *_layers(fields, stem),
        *norm(("post_norm",), f"{stem}post_layernorm", d),
    ]


def text_table(fields: Mapping[str, Any], stem: str = TEXT) -> list[Weight]:
    """Lists a text tower's tensors."""
    d, name = fields["dim"], f"{stem}embeddings.{{}}_embedding".format
    return [
        _embedding("token", name("token"), fields["vocab_size"], d),
        _embedding("position", name("position"), fields["max_positions"], d),
        *_layers(fields, stem),
        *norm(("final_norm",), f"{stem}final_layer_norm", d),
    ]


def _embedding(ours: str, theirs: str, size: int, dim: int) -> Weight:
    return Weight((ours, "embedding"), f"{theirs}.weight", (size, dim))


def _layers(fields: Mapping[str, Any], stem: str) -> list[Weight]:
    d, ffn, layer = fields["dim"], fields["ffn_dim"], f"{stem}encoder.layers.{{}}."
    sizes = {
        "query": ("self_attn.q_proj", d, d),
        "key": ("self_attn.k_proj", d, d),
        "value": ("self_attn.v_proj", d, d),
        "out": ("self_attn.out_proj", d, d),
        "up": ("mlp.fc1", ffn, d),
        "down": ("mlp.fc2", d, ffn),
    }
    table = [
        *norm(("layers", "norm1"), f"{layer}layer_norm1", d),
        *norm(("layers", "norm2"), f"{layer}layer_norm2", d),
    ]
    for ours, (theirs, out, inner) in sizes.items():
        table += linear(("layers", ours), f"{layer}{theirs}", out, inner)
    return stacked(table, fields["depth"])


def vision_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `config.json` of a vision tower."""
    return {
        "architectures": ["CLIPVisionModel"],
        "model_type": "clip_vision_model",
        **_tower_config(fields),
        "image_size": fields["image_size"],
        "patch_size": fields["patch_size"],
        "num_channels": 3,
    }


def text_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `config.json` of a text tower."""
    end = fields["eos_id"]
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        **_tower_config(fields),
        "vocab_size": fields["vocab_size"],
        "max_position_embeddings": fields["max_positions"],
        "eos_token_id": _OLD_END if end is None else end,
    }


def _tower_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{theirs: fields[ours] for ours, theirs in _SIZES.items()},
        "hidden_act": fields["activation"],
        "layer_norm_eps": fields["eps"],
    }


def clip_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `config.json` of both towers."""
    out = {"projection_dim": fields["projection_dim"]}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "vision_config": vision_config(fields["vision"]) | out,
        "text_config": text_config(fields["text"]) | out,
        **out,
    }


_FIELDS = {"vision": vision_fields, "text": text_fields}


def _tower(table: Callable, config: Callable, stem: str) -> Family:
    def rename(name: str) -> str:
        return stem + name if name.startswith(_BARE) else name

    def in_memory(name: str) -> str:
        return name.removeprefix(stem)

    return Family(table, config, rename, in_memory)


CLIP_FAMILIES: Mapping[Part, Family] = {
    "both": Family(clip_table, clip_config),
    "vision": _tower(vision_table, vision_config, VISION),
    "text": _tower(text_table, text_config, TEXT),
}
