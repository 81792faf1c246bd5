"""BERT, by the files of Hugging Face."""

from pathlib import Path
from typing import Any

from eegkd.convert.bert import load_bert
from eegkd.models.bert import Bert, BertConfig
from eegkd.models.published.base import (
    Published,
    WeightsLicence,
    make_config,
    make_tree,
)
from eegkd.typing import PyTree


def load(folder: str | Path, **options: Any) -> tuple[Bert, PyTree]:
    """Reads a folder with `config.json` and `model.safetensors`."""
    config, pairs = load_bert(folder)
    return Bert(make_config(BertConfig, config, options)), {"params": make_tree(pairs)}


PUBLISHED = Published(
    load,
    licences=(
        WeightsLicence("huggingface.co/google-bert/bert-base-uncased", "Apache-2.0"),
    ),
)
