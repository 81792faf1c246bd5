"""LaBraM, by the names of its authors or of braindecode."""

from pathlib import Path
from typing import Any

from eegkd.convert.labram import load_labram
from eegkd.models.labram import Labram, LabramConfig
from eegkd.models.published.base import (
    Published,
    WeightsLicence,
    make_config,
    make_tree,
)
from eegkd.typing import PyTree


def load(path: str | Path, **options: Any) -> tuple[Labram, PyTree]:
    """Reads a folder of safetensors, or a file."""
    config, pairs = load_labram(path)
    cfg = make_config(LabramConfig, config, options)
    return Labram(cfg), {"params": make_tree(pairs)}


PUBLISHED = Published(
    load,
    licences=(
        WeightsLicence(
            "github.com/935963004/LaBraM",
            "MIT",
            "The licence of the repository that the weights lie in.",
        ),
        WeightsLicence(
            "huggingface.co/braindecode/labram-pretrained",
            "BSD-3-Clause",
            "A copy by braindecode's authors; the original repository's licence is "
            "MIT.",
        ),
    ),
)
