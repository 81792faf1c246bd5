"""Joins converted weights with the module they belong to."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from eegkd.convert.bert import load_bert
from eegkd.convert.cbramod import load_cbramod
from eegkd.convert.keras import load_eegnet
from eegkd.convert.labram import load_labram
from eegkd.errors import InputError
from eegkd.models.bert import Bert, BertConfig
from eegkd.models.cbramod import CBraMod, CBraModConfig
from eegkd.models.eegnet import EEGNet, EEGNetConfig
from eegkd.models.grid import TEN_TWENTY
from eegkd.models.labram import Labram, LabramConfig
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


def _tree(pairs: Any) -> PyTree:
    return unflatten_dict({path: jnp.asarray(array) for path, array in pairs})


_LOADERS: dict[str, Callable[..., _Loaded]] = {
    "bert": _bert,
    "cbramod": _cbramod,
    "eegnet": _eegnet,
    "labram": _labram,
}


def load_pretrained(
    name: str, folder_or_file: str | Path, **options: Any
) -> tuple[Any, PyTree]:
    """Builds a published model with its weights.

    Args:
        name: "bert", "cbramod", "labram" or "eegnet".
        folder_or_file: Its files; for "bert", a folder with `config.json` and
            `model.safetensors`; for "cbramod" and "labram", such a folder, or a
            safetensors or PyTorch file with the names of the authors or of
            braindecode; for "eegnet", an HDF5 file of Keras.
        **options: Fields of the model's config that the files do not tell, or that are
            to differ: `channels` and `num_patches` of the windows at hand, `dropout`,
            `dtype`; `reconstruct=False` leaves CBraMod's last layer out.

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
