"""Joins converted weights with the module they belong to."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
from eegkd.errors import InputError
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
from eegkd.typing import PyTree

_Loaded = tuple[nn.Module, PyTree]


def _bert(folder: str | Path, **options: Any) -> _Loaded:
    config, pairs = load_bert(folder)
    return Bert(BertConfig(**config | options)), {"params": _tree(pairs)}


def _cbramod(path: str | Path, **options: Any) -> _Loaded:
    config, pairs = load_cbramod(path)
    _check_order(path, config.get("channels", TEN_TWENTY), options.get("channels"))
    cfg = CBraModConfig(**config | options)
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
    return Labram(LabramConfig(**config | options)), {"params": _tree(pairs)}


def _eegnet(path: str | Path, **options: Any) -> _Loaded:
    config, pairs = load_eegnet(path)
    return EEGNet(EEGNetConfig(**config | options)), _tree(pairs)


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
            "vision": ClipVisionConfig(**_part("vision", config, options, dtype)),
            "text": ClipTextConfig(**_part("text", config, options, dtype)),
        }
        module = Clip(ClipConfig(**config | options | towers))
    elif part == "vision":
        module = ClipVision(ClipVisionConfig(**config | _types(dtype) | options))
    else:
        module = ClipText(ClipTextConfig(**config | _types(dtype) | options))
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
    module = Decoder(DecoderConfig(**config | _types(dtype) | options))
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
        "vision": ClipVisionConfig(**_part("vision", config, options, dtype)),
        "language": DecoderConfig(**_part("language", config, options, dtype)),
    }
    module = Llava(LlavaConfig(**config | options | parts))
    return module, {"params": load_tree(arrays, dtype=dtype, shardings=shardings)}


def _part(
    name: str, config: Mapping[str, Any], options: Mapping[str, Any], dtype: Any
) -> dict[str, Any]:
    """Returns the fields of a part's config, and those of `options` in their place."""
    return config[name] | _types(dtype) | options.get(name, {})


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
        ValueError: If the name is unknown.
        InputError: If the files are missing, broken or of another model; if LaBraM has
            no embedding for a channel or for so many patches; if CBraMod's channels
            are in another order than they were trained in.
    """
    if name not in _LOADERS:
        raise ValueError(f"Unknown model {name!r}; there is {', '.join(_LOADERS)}.")
    return _LOADERS[name](folder_or_file, **options)
