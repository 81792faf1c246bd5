"""Encoders as Linen modules: signals or token ids in, named tensors out."""

from eegkd.models.bert import Bert, BertConfig
from eegkd.models.bridges import (
    LayerRouter,
    MultiHeadAlignment,
    TokenProjector,
    pool_tokens,
)
from eegkd.models.conformer import Conformer, ConformerConfig, skip_init
from eegkd.models.eegnet import EEGNet, EEGNetConfig
from eegkd.models.heads import LinearHead, apply_params
from eegkd.models.layers import Projection
from eegkd.models.pretrained import load_pretrained
from eegkd.models.prompts import Prompts

__all__ = [
    "Bert",
    "BertConfig",
    "Conformer",
    "ConformerConfig",
    "EEGNet",
    "EEGNetConfig",
    "LayerRouter",
    "LinearHead",
    "MultiHeadAlignment",
    "Projection",
    "Prompts",
    "TokenProjector",
    "apply_params",
    "load_pretrained",
    "pool_tokens",
    "skip_init",
]
