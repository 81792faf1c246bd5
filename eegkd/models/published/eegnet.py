"""EEGNet, by the HDF5 files of Keras."""

from pathlib import Path
from typing import Any

from eegkd.convert.keras import load_eegnet
from eegkd.models.eegnet import EEGNet, EEGNetConfig
from eegkd.models.published.base import (
    Published,
    WeightsLicence,
    make_config,
    make_tree,
)
from eegkd.typing import PyTree


def load(path: str | Path, **options: Any) -> tuple[EEGNet, PyTree]:
    """Reads an HDF5 file."""
    config, pairs = load_eegnet(path)
    return EEGNet(make_config(EEGNetConfig, config, options)), make_tree(pairs)


PUBLISHED = Published(
    load,
    licences=(
        WeightsLicence(
            "github.com/vlawhern/arl-eegmodels",
            "CC0-1.0 or Apache-2.0",
            "By the authors' part of that repository.",
        ),
    ),
)
