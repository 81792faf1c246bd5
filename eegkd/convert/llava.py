"""LLaVA 1.5 and 1.6: their `config.json`, and a table of their tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eegkd.convert.clip import vision_config, vision_fields, vision_table
from eegkd.convert.decoder import (
    decoder_config,
    decoder_fields,
    decoder_table,
    tied_names,
)
from eegkd.convert.hf_config import Section, check_type, open_config, refuse_problems
from eegkd.convert.hf_folder import LazyArray, locate, read_headers
from eegkd.convert.tables import Family, Weight, linear, under

_ONE_SIX = "llava_next"
_TYPES = ("llava", _ONE_SIX)
_VISION, _LANGUAGE = "vision_tower.vision_model.", "language_model."
_HEAD = f"{_LANGUAGE}lm_head."
# The table has the names of the published files. Versions of transformers that nest or
# name the parts otherwise, in memory or on disk: theirs, ours.
_STARTS = (
    ("model.language_model.", f"{_LANGUAGE}model."),
    ("model.vision_tower.vision_model.", _VISION),
    ("model.vision_tower.", _VISION),
    (_VISION, _VISION),
    ("vision_tower.", _VISION),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("lm_head.", _HEAD),
)
_IN_MEMORY = (
    (f"{_LANGUAGE}model.", "model.language_model."),
    (_HEAD, "lm_head."),
    (_VISION, "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    ("image_newline", "model.image_newline"),
)
_GRIDS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


def load_llava(folder: str | Path) -> tuple[dict[str, Any], list[LazyArray]]:
    """Finds the weights of a folder of `config.json` and safetensors files.

    Args:
        folder: Folder of a `LlavaForConditionalGeneration` or a
            `LlavaNextForConditionalGeneration`, with the names that published files
            have, that `save_pretrained` writes, or that are in memory.

    Returns:
        Keyword arguments of `models.LlavaConfig`, those of the towers nested, and the
        parameters by path, which are not read yet.

    Raises:
        InputError: If a file is missing or broken, the model is another or has what
            `Llava` has not, or names or shapes differ.
    """
    config = open_config(folder)
    check_type(folder, config.get("model_type"), _TYPES)
    fields = llava_fields(config)
    refuse_problems(folder, config)
    checkpoint = read_headers(folder)
    head = f"{_HEAD}weight"
    is_tied = fields["language"]["tied"]
    ignored = tied_names(checkpoint, rename, head) if is_tied else ()
    table = llava_table(fields)
    return fields, locate(checkpoint, table, rename=rename, ignored=ignored)


def rename(name: str) -> str:
    """Returns the table's name of a tensor."""
    return _start_with(_STARTS, name)


def in_memory(name: str) -> str:
    """Returns the name that a tensor of the table has in transformers' model."""
    return _start_with(_IN_MEMORY, name)


def _start_with(starts: tuple[tuple[str, str], ...], name: str) -> str:
    for old, new in starts:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def llava_fields(config: Section) -> dict[str, Any]:
    """Returns sizes as fields of `models.LlavaConfig`, those of the parts nested."""
    model = config.get("model_type")
    config.one_of("projector_hidden_act", ("gelu",), "gelu")
    config.one_of("vision_feature_select_strategy", ("default",), "default")
    config.one_of("multimodal_projector_bias", (True,), True)
    vision, text = config.inner("vision_config"), config.inner("text_config")
    vision.one_of("model_type", ("clip_vision_model",), "clip_vision_model")
    language = text.one_of("model_type", ("llama", "qwen2"), "llama")
    fields: dict[str, Any] = {
        "vision": vision_fields(vision),
        "language": decoder_fields(text, language),
        "grids": _grids(config) if model == _ONE_SIX else (),
    }
    depth, layer = fields["vision"]["depth"], config.get("vision_feature_layer", -2)
    # From the front, transformers counts the embeddings as the first.
    if not isinstance(layer, int) or not (-depth <= layer < 0 or 0 < layer <= depth):
        config.problems.append(
            f"vision_feature_layer has to be one of {depth} layers; got {layer!r}"
        )
        layer = -1
    fields["select_layer"] = layer if layer < 0 else layer - 1
    # LLaVA-1.5's files say it of the part or of the whole; those of 1.6, of the whole.
    of_part = model != _ONE_SIX and fields["language"]["tied"]
    of_whole = bool(config.get("tie_word_embeddings", False))
    fields["language"]["tied"] = of_whole or of_part
    return fields


def _grids(config: Section) -> tuple[tuple[int, int], ...]:
    grids = config.get("image_grid_pinpoints", _GRIDS)
    try:
        return tuple((int(height), int(width)) for height, width in grids)
    except (TypeError, ValueError):
        config.problems.append(
            f"image_grid_pinpoints has to list heights and widths; got {grids!r}"
        )
        return _GRIDS


def llava_table(fields: Mapping[str, Any]) -> list[Weight]:
    """Lists the tensors of all parts.

    Args:
        fields: Fields of `models.LlavaConfig`, those of the parts nested.
    """
    vision, language = fields["vision"], fields["language"]
    projector, d = "multi_modal_projector.", language["dim"]
    newline = [Weight(("newline",), "image_newline", (d,))] if fields["grids"] else []
    return [
        *under(("vision",), vision_table(vision, _VISION)),
        *linear(("projector", "linear_1"), f"{projector}linear_1", d, vision["dim"]),
        *linear(("projector", "linear_2"), f"{projector}linear_2", d, d),
        *newline,
        *under(("language",), decoder_table(language, _LANGUAGE)),
    ]


def llava_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `config.json` of a LLaVA."""
    grids, layer = fields["grids"], fields["select_layer"]
    name = "LlavaNext" if grids else "Llava"
    text = decoder_config(fields["language"])
    return {
        "architectures": [f"{name}ForConditionalGeneration"],
        "model_type": _ONE_SIX if grids else "llava",
        "vision_config": vision_config(fields["vision"]),
        "text_config": text,
        "tie_word_embeddings": text["tie_word_embeddings"],
        "vision_feature_layer": layer if layer < 0 else layer + 1,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        **({"image_grid_pinpoints": [[*grid] for grid in grids]} if grids else {}),
    }


LLAVA = Family(llava_table, llava_config, rename, in_memory)
