"""Published models, one file each: how one is loaded, saved and planned; its licences.

A model is a file with `PUBLISHED`, whose name is the model's, and its place in the
tuple below.
"""

from collections.abc import Mapping

from eegkd.models.published import (
    bert,
    cbramod,
    clip,
    eegnet,
    labram,
    llama,
    llava,
    qwen2,
)
from eegkd.models.published.base import Planned, Published, WeightsLicence

__all__ = ["PUBLISHED", "Planned", "Published", "WeightsLicence", "licences_of"]

# In the order in which `plan` lists their sizes.
_MODELS = (bert, cbramod, eegnet, labram, clip, llama, qwen2, llava)

PUBLISHED: Mapping[str, Published] = {
    model.__name__.rpartition(".")[2]: model.PUBLISHED for model in _MODELS
}
"""Published models by the names that `load_pretrained` takes."""


def licences_of(model: str) -> tuple[WeightsLicence, ...]:
    """Returns the published sets of weights of one model; empty for an unknown one."""
    return PUBLISHED[model].licences if model in PUBLISHED else ()
