"""Parts shared by loaders of EEG foundation models: names, and config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from eegkd.errors import InputError

RATE = 200
PATCH = 200
_HEADS = ("classifier.", "final_layer.", "head.")


class Channel(TypedDict):
    """A channel in a `config.json` of braindecode."""

    ch_name: str


class Fields(TypedDict, total=False):
    """Shape of a `config.json` of braindecode, as far as it is read."""

    sfreq: float | None
    patch_size: int
    chs_info: list[Channel] | None
    n_times: int | None
    nhead: int
    channels_kernel_stride_padding_norm: list[
        tuple[int, int, int, int, tuple[int, int]]
    ]


def backbone_only(
    tensors: Mapping[str, np.ndarray],
    prefixes: tuple[str, ...],
    left_out: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """Removes prefixes from names, and tensors of task heads.

    Args:
        tensors: Tensors by the file's names.
        prefixes: Prefixes of names; each is removed once, in this order.
        left_out: Beginnings of other names that are not used.
    """
    kept = {}
    for name, array in tensors.items():
        for prefix in prefixes:
            name = name.removeprefix(prefix)
        if not name.startswith(_HEADS + left_out):
            kept[name] = array
    return kept


def signal_of(source: str | Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the signal's fields in `config.json`, as fields of `GridConfig`.

    Raises:
        InputError: If it is of another rate or of other patches.
    """
    expect(source, "sfreq", config.get("sfreq") or RATE, RATE)
    expect(source, "patch_size", config.get("patch_size", PATCH), PATCH)
    found: dict[str, Any] = {}
    if config.get("chs_info"):
        found["channels"] = tuple(entry["ch_name"] for entry in config["chs_info"])
    if config.get("n_times"):
        found["num_patches"] = config["n_times"] // PATCH
    return found


def expect(source: str | Path, field: str, found: Any, wanted: Any) -> None:
    """Refuses a field of `config.json` that would make another model.

    Raises:
        InputError: If it differs.
    """
    if found != wanted:
        raise InputError(
            f"{source}: config.json: {field} is {found}, and only weights for {wanted} "
            "can be read: take those of the published architecture."
        )
