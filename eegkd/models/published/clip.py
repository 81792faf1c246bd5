"""CLIP and its towers, by the files of Hugging Face."""

from pathlib import Path
from typing import Any

from eegkd.convert.clip import CLIP_FAMILIES, Part, load_clip
from eegkd.models.clip import (
    PRESETS,
    Clip,
    ClipConfig,
    ClipText,
    ClipTextConfig,
    ClipVision,
    ClipVisionConfig,
)
from eegkd.models.loading import Shardings
from eegkd.models.published.base import (
    Planned,
    Published,
    WeightsLicence,
    dtype_fields,
    load_fitting,
    make_config,
    make_part,
)
from eegkd.typing import PyTree

_LARGE = "clip-vit-large-patch14-336"


def load(
    folder: str | Path,
    *,
    part: Part | None = None,
    dtype: Any = None,
    shardings: Shardings | None = None,
    **options: Any,
) -> tuple[Clip | ClipVision | ClipText, PyTree]:
    """Reads both towers or one, tensor by tensor."""
    part, config, arrays = load_clip(folder, part)
    if part == "both":
        towers = {
            "vision": make_part(ClipVisionConfig, "vision", config, options, dtype),
            "text": make_part(ClipTextConfig, "text", config, options, dtype),
        }
        module = Clip(make_config(ClipConfig, config, options, towers))
    elif part == "vision":
        fields = config | dtype_fields(dtype)
        module = ClipVision(make_config(ClipVisionConfig, fields, options))
    else:
        fields = config | dtype_fields(dtype)
        module = ClipText(make_config(ClipTextConfig, fields, options))
    params = load_fitting(
        folder, module, arrays, CLIP_FAMILIES[part], dtype=dtype, shardings=shardings
    )
    return module, {"params": params}


PUBLISHED = Published(
    load,
    licences=(
        WeightsLicence(
            "huggingface.co/openai/clip-vit-large-patch14-336",
            "MIT",
            "The licence of github.com/openai/CLIP; the weights' card states none, and "
            "calls deployed uses out of scope.",
        ),
    ),
    families={
        Clip: CLIP_FAMILIES["both"],
        ClipText: CLIP_FAMILIES["text"],
        ClipVision: CLIP_FAMILIES["vision"],
    },
    plan={_LARGE: Planned(PRESETS[_LARGE].vision, ClipVision, group="vision")},
)
