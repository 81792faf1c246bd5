"""Encoders as Linen modules: signals or token ids in, named tensors out."""

from eegkd.models.bert import Bert, BertConfig
from eegkd.models.bridges import (
    LayerRouter,
    MultiHeadAlignment,
    TokenProjector,
    pool_tokens,
)
from eegkd.models.cbramod import CBraMod, CBraModConfig, PatchEmbedding
from eegkd.models.conformer import Conformer, ConformerConfig, skip_init
from eegkd.models.eegnet import EEGNet, EEGNetConfig
from eegkd.models.grid import GridConfig, GridConv, check_windows
from eegkd.models.heads import (
    LinearHead,
    TaskHead,
    apply_params,
    cbramod_head,
    labram_head,
)
from eegkd.models.labram import LABRAM_CHANNELS, Labram, LabramConfig
from eegkd.models.layers import Projection
from eegkd.models.pretrained import load_pretrained
from eegkd.models.prompts import Prompts

__all__ = [
    "LABRAM_CHANNELS",
    "Bert",
    "BertConfig",
    "CBraMod",
    "CBraModConfig",
    "Conformer",
    "ConformerConfig",
    "EEGNet",
    "EEGNetConfig",
    "GridConfig",
    "GridConv",
    "Labram",
    "LabramConfig",
    "LayerRouter",
    "LinearHead",
    "MultiHeadAlignment",
    "PatchEmbedding",
    "Projection",
    "Prompts",
    "TaskHead",
    "TokenProjector",
    "apply_params",
    "cbramod_head",
    "check_windows",
    "labram_head",
    "load_pretrained",
    "pool_tokens",
    "skip_init",
]
