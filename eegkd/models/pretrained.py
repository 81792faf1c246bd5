"""Joins converted weights with the module they belong to."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from eegkd.convert.bert import load_bert
from eegkd.models.bert import Bert, BertConfig
from eegkd.typing import PyTree


def _bert(folder: str | Path) -> tuple[nn.Module, PyTree]:
    config, pairs = load_bert(folder)
    params = unflatten_dict({path: jnp.asarray(array) for path, array in pairs})
    return Bert(BertConfig(**config)), {"params": params}


_LOADERS = {"bert": _bert}


def load_pretrained(name: str, folder_or_file: str | Path) -> tuple[Any, PyTree]:
    """Builds a published model with its weights.

    Args:
        name: "bert".
        folder_or_file: Its files; for "bert", a folder with `config.json` and
            `model.safetensors`.

    Returns:
        The module, and variables for `module.apply`.

    Raises:
        ValueError: If the name is unknown.
        InputError: If the files are missing, broken or of another model.
    """
    if name not in _LOADERS:
        raise ValueError(f"Unknown model {name!r}; there is {', '.join(_LOADERS)}.")
    return _LOADERS[name](folder_or_file)
