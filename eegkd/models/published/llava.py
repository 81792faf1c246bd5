"""LLaVA 1.5 and 1.6, by the files of Hugging Face."""

from pathlib import Path
from typing import Any

from eegkd.convert.llava import LLAVA, load_llava
from eegkd.models.clip import ClipVisionConfig
from eegkd.models.decoder import DecoderConfig
from eegkd.models.llava import PRESETS, Llava, LlavaConfig
from eegkd.models.loading import Shardings
from eegkd.models.published.base import (
    Planned,
    Published,
    WeightsLicence,
    load_fitting,
    make_config,
    make_part,
)
from eegkd.typing import PyTree


def load(
    folder: str | Path,
    *,
    dtype: Any = None,
    shardings: Shardings | None = None,
    **options: Any,
) -> tuple[Llava, PyTree]:
    """Reads tower, projector and decoder, tensor by tensor."""
    config, arrays = load_llava(folder)
    parts = {
        "vision": make_part(ClipVisionConfig, "vision", config, options, dtype),
        "language": make_part(DecoderConfig, "language", config, options, dtype),
    }
    module = Llava(make_config(LlavaConfig, config, options, parts))
    params = load_fitting(
        folder, module, arrays, LLAVA, dtype=dtype, shardings=shardings
    )
    return module, {"params": params}


def _plan(config: LlavaConfig) -> Planned:
    """Plans a LLaVA: the tower is frozen, and so is a decoder with adapters."""
    return Planned(
        config,
        Llava,
        layers="language/layers/*",
        own=("projector", "newline") if config.grids else ("projector",),
        tuned=("language",),
    )


PUBLISHED = Published(
    load,
    licences=(
        WeightsLicence(
            "huggingface.co/llava-hf/llava-1.5-7b-hf, -13b-hf",
            "Llama 2 Community License",
            "Its decoder is a Vicuna; its instructions were made with GPT-4, whose "
            "provider's terms may bind too.",
        ),
        WeightsLicence(
            "huggingface.co/llava-hf/llava-v1.6-vicuna-7b-hf",
            "Llama 2 Community License",
            "Its decoder is a Vicuna.",
        ),
    ),
    families={Llava: LLAVA},
    plan={name: _plan(config) for name, config in PRESETS.items()},
)
