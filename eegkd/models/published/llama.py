"""Llama and Vicuna, by the files of Hugging Face."""

from functools import partial
from pathlib import Path
from typing import Any

from eegkd.convert.decoder import DECODER, load_decoder
from eegkd.models.decoder import PRESETS, Decoder, DecoderConfig
from eegkd.models.loading import Shardings
from eegkd.models.published.base import (
    Planned,
    Published,
    WeightsLicence,
    dtype_fields,
    load_fitting,
    make_config,
)
from eegkd.typing import PyTree


def load(
    model: str,
    folder: str | Path,
    *,
    dtype: Any = None,
    shardings: Shardings | None = None,
    **options: Any,
) -> tuple[Decoder, PyTree]:
    """Reads a decoder, "llama" or "qwen2", tensor by tensor."""
    config, arrays = load_decoder(folder, model)
    fields = config | dtype_fields(dtype)
    module = Decoder(make_config(DecoderConfig, fields, options))
    params = load_fitting(
        folder, module, arrays, DECODER, dtype=dtype, shardings=shardings
    )
    return module, {"params": params}


PUBLISHED = Published(
    partial(load, "llama"),
    licences=(
        WeightsLicence(
            "huggingface.co/lmsys/vicuna-7b-v1.5, -13b-v1.5",
            "Llama 2 Community License",
            "Made from Llama 2: its licence and acceptable use policy bind; read what "
            "it says of other models that are improved with its outputs before you "
            "distil.",
        ),
    ),
    families={Decoder: DECODER},
    plan={
        name: Planned(PRESETS[name], Decoder, group="language")
        for name in ("vicuna-7b", "vicuna-13b")
    },
)
