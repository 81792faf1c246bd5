"""CBraMod, by the names of its authors or of braindecode."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eegkd.convert.cbramod import load_cbramod
from eegkd.errors import InputError
from eegkd.models.cbramod import CBraMod, CBraModConfig
from eegkd.models.grid import TEN_TWENTY
from eegkd.models.published.base import (
    Published,
    WeightsLicence,
    make_config,
    make_tree,
)
from eegkd.typing import PyTree


def load(path: str | Path, **options: Any) -> tuple[CBraMod, PyTree]:
    """Reads a folder of safetensors, or a file.

    Raises:
        InputError: If the channels are in another order than they were trained in.
    """
    config, pairs = load_cbramod(path)
    _check_order(path, config.get("channels", TEN_TWENTY), options.get("channels"))
    cfg = make_config(CBraModConfig, config, options)
    params = make_tree(pairs)
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


PUBLISHED = Published(
    load,
    licences=(
        WeightsLicence(
            "huggingface.co/weighting666/CBraMod",
            "none stated",
            "Ask its authors before you pass on the weights or a student of them.",
        ),
        WeightsLicence(
            "huggingface.co/braindecode/cbramod-pretrained",
            "BSD-3-Clause",
            "A copy by braindecode's authors; the original weights state no licence.",
        ),
    ),
)
