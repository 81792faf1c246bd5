"""Joins converted weights with the module they belong to."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from eegkd.convert.bert import load_bert
from eegkd.convert.cbramod import load_cbramod
from eegkd.convert.clip import Part, load_clip
from eegkd.convert.decoder import load_decoder
from eegkd.convert.keras import load_eegnet
from eegkd.convert.labram import load_labram
from eegkd.convert.llava import load_llava
from eegkd.errors import InputError, suggest
from eegkd.models.bert import Bert, BertConfig
from eegkd.models.cbramod import CBraMod, CBraModConfig
from eegkd.models.clip import (
    Clip,
    ClipConfig,
    ClipText,
    ClipTextConfig,
    ClipVision,
    ClipVisionConfig,
)
from eegkd.models.decoder import Decoder, DecoderConfig
from eegkd.models.eegnet import EEGNet, EEGNetConfig
from eegkd.models.grid import TEN_TWENTY
from eegkd.models.labram import Labram, LabramConfig
from eegkd.models.llava import Llava, LlavaConfig
from eegkd.models.loading import Shardings, load_tree
from eegkd.models.saving import check_fit
from eegkd.typing import PyTree

_Loaded = tuple[nn.Module, PyTree]
_Config = TypeVar("_Config")


def _bert(folder: str | Path, **options: Any) -> _Loaded:
    config, pairs = load_bert(folder)
    return Bert(_config(BertConfig, config, options)), {"params": _tree(pairs)}


def _cbramod(path: str | Path, **options: Any) -> _Loaded:
    config, pairs = load_cbramod(path)
    _check_order(path, config.get("channels", TEN_TWENTY), options.get("channels"))
    cfg = _config(CBraModConfig, config, options)
    params = _tree(pairs)
    if not cfg.reconstruct:
        params.pop("proj_out", None)
    return CBraMod(cfg), {"params": params}


def _check_order(
    path: str | Path, trained: Sequence[str], wanted: Sequence[str] | None
) -> None:
    """Refuses the channels of pre-training in another order: positions are by place."""
    given = [name.upper() for name in wanted or trained]
    known = [name.upper() for name in trained]
    if given != known and sorted(given) == sorted(known):
        raise InputError(
            f"{path}: the model was trained with these channels in another order, and "
            "knows them by their place: prepare the windows with --data.channels "
            f"{' '.join(trained)}."
        )


def _labram(path: str | Path, **options: Any) -> _Loaded:
    config, pairs = load_labram(path)
    return Labram(_config(LabramConfig, config, options)), {"params": _tree(pairs)}


def _eegnet(path: str | Path, **options: Any) -> _Loaded:
    config, pairs = load_eegnet(path)
    return EEGNet(_config(EEGNetConfig, config, options)), _tree(pairs)


def _clip(
    folder: str | Path,
    *,
    part: Part | None = None,
    dtype: Any = None,
    shardings: Shardings | None = None,
    **options: Any,
) -> _Loaded:
    part, config, arrays = load_clip(folder, part)
    if part == "both":
        towers = {
            "vision": _part(ClipVisionConfig, "vision", config, options, dtype),
            "text": _part(ClipTextConfig, "text", config, options, dtype),
        }
        module = Clip(_config(ClipConfig, config, options, towers))
    elif part == "vision":
        module = ClipVision(_config(ClipVisionConfig, config | _types(dtype), options))
    else:
        module = ClipText(_config(ClipTextConfig, config | _types(dtype), options))
    check_fit(folder, module, arrays)
    return module, {"params": load_tree(arrays, dtype=dtype, shardings=shardings)}


def _decoder(
    model: str,
    folder: str | Path,
    *,
    dtype: Any = None,
    shardings: Shardings | None = None,
    **options: Any,
) -> _Loaded:
    config, arrays = load_decoder(folder, model)
    module = Decoder(_config(DecoderConfig, config | _types(dtype), options))
    check_fit(folder, module, arrays)
    return module, {"params": load_tree(arrays, dtype=dtype, shardings=shardings)}


def _llava(
    folder: str | Path,
    *,
    dtype: Any = None,
    shardings: Shardings | None = None,
    **options: Any,
) -> _Loaded:
    config, arrays = load_llava(folder)
    parts = {
        "vision": _part(ClipVisionConfig, "vision", config, options, dtype),
        "language": _part(DecoderConfig, "language", config, options, dtype),
    }
    module = Llava(_config(LlavaConfig, config, options, parts))
    check_fit(folder, module, arrays)
    return module, {"params": load_tree(arrays, dtype=dtype, shardings=shardings)}


def _config(
    cls: type[_Config],
    found: Mapping[str, Any],
    options: Mapping[str, Any],
    parts: Mapping[str, Any] | None = None,
) -> _Config:
    """Makes a config of what the files tell, and what is asked in its place.

    Args:
        cls: Of the config.
        found: Fields by the files.
        options: Fields by the caller.
        parts: Configs of its parts.

    Raises:
        InputError: If an option is no field, of its name or value; the message lists
            the fields.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            inside = [
                part
                for part, config in (parts or {}).items()
                if name in {field.name for field in dataclasses.fields(config)}
            ]
            cure = suggest(name, known)
            if inside:
                ways = " or ".join(f'{part}={{"{name}": ...}}' for part in inside)
                cure = f" It is one of a part: give {ways}."
            raise InputError(
                f"load_pretrained: {cls.__name__} has no field {name}.{cure} It has "
                f"{', '.join(known)}."
            )
    return cls(**{**found, **options, **(parts or {})})


def _part(
    cls: type[_Config],
    name: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    dtype: Any,
) -> _Config:
    """Makes the config of a part, whose fields are an option of the whole."""
    given = options.get(name, {})
    if not isinstance(given, Mapping):
        raise InputError(
            f"load_pretrained: {name} is {given!r}, and has to list fields of the part "
            f'by name, as {name}={{"layers_out": (-1,)}}.'
        )
    return _config(cls, config[name] | _types(dtype), given)


def _types(dtype: Any) -> dict[str, Any]:
    return {} if dtype is None else {"dtype": dtype, "param_dtype": dtype}


def _tree(pairs: Any) -> PyTree:
    return unflatten_dict({path: jnp.asarray(array) for path, array in pairs})


_LOADERS: dict[str, Callable[..., _Loaded]] = {
    "bert": _bert,
    "cbramod": _cbramod,
    "clip": _clip,
    "eegnet": _eegnet,
    "labram": _labram,
    "llama": partial(_decoder, "llama"),
    "llava": _llava,
    "qwen2": partial(_decoder, "qwen2"),
}


def load_pretrained(
    name: str, folder_or_file: str | Path, **options: Any
) -> tuple[Any, PyTree]:
    """Builds a published model with its weights.

    Args:
        name: "bert", "cbramod", "clip", "eegnet", "labram", "llama", "llava" (1.5 and
            1.6) or "qwen2".
        folder_or_file: Its files; for "cbramod" and "labram", a folder with
            `config.json` and `model.safetensors`, or a safetensors or PyTorch file with
            the names of the authors or of braindecode; for "eegnet", an HDF5 file of
            Keras; for the others, a folder of Hugging Face with `config.json` and
            `model.safetensors`, all but "bert" also in shards with their index.
        **options: Fields of the model's config that the files do not tell, or that are
            to differ: `channels` and `num_patches` of the windows at hand, `dropout`,
            `dtype`, `layers_out`; `reconstruct=False` leaves CBraMod's last layer out.
            For "clip", "llama", "llava" and "qwen2", which are read tensor by tensor:
            `dtype` is also that of the parameters (None: the file's, at least float32),
            and `shardings`, called with a parameter's path and shape, says how it is
            spread over devices. Fields of a part of CLIP or LLaVA are given as
            `language={"remat": "full"}`; `part="vision"` or "text" takes one tower of
            CLIP.

    Returns:
        The module, and variables for `module.apply`.

    Raises:
        InputError: If the name or an option is unknown, or an option does not fit the
            files; if the files are missing, broken or of another model; if LaBraM has
            no embedding for a channel or for so many patches; if CBraMod's channels
            are in another order than they were trained in.
    """
    if name not in _LOADERS:
        raise InputError(
            f"Unknown model {name!r}; there is {', '.join(_LOADERS)}."
            f"{suggest(name, _LOADERS)}"
        )
    return _LOADERS[name](folder_or_file, **options)
