"""Qwen2, by the files of Hugging Face."""

from functools import partial

from eegkd.convert.decoder import DECODER
from eegkd.models.decoder import PRESETS, Decoder
from eegkd.models.published.base import Planned, Published, WeightsLicence
from eegkd.models.published.llama import load

PUBLISHED = Published(
    partial(load, "qwen2"),
    licences=(
        WeightsLicence(
            "huggingface.co/Qwen/Qwen2-0.5B, Qwen2-1.5B",
            "Apache-2.0",
            "The largest Qwen2 has another licence.",
        ),
    ),
    families={Decoder: DECODER},
    plan={
        name: Planned(PRESETS[name], Decoder, group="language")
        for name in ("qwen2-0.5b", "qwen2-1.5b")
    },
)
