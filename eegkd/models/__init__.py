"""Encoders as Linen modules: signals or token ids in, named tensors out."""

from eegkd.models.bert import Bert, BertConfig
from eegkd.models.bridges import (
    LayerRouter,
    MultiHeadAlignment,
    RoutedTarget,
    TokenProjector,
    pool_tokens,
)
from eegkd.models.cbramod import CBraMod, CBraModConfig, PatchEmbedding
from eegkd.models.clip import (
    Clip,
    ClipConfig,
    ClipText,
    ClipTextConfig,
    ClipVision,
    ClipVisionConfig,
)
from eegkd.models.conformer import Conformer, ConformerConfig, skip_init
from eegkd.models.decoder import Decoder, DecoderConfig
from eegkd.models.dlink_student import DlinkStudent, DlinkStudentConfig
from eegkd.models.eegnet import EEGNet, EEGNetConfig
from eegkd.models.generate import Decoding, Generated, generate, prefill
from eegkd.models.grid import (
    PATCH,
    TEN_TWENTY,
    GridConfig,
    GridConv,
    check_windows,
    unit_scale,
)
from eegkd.models.heads import (
    LinearHead,
    TaskHead,
    apply_params,
    cbramod_head,
    labram_head,
)
from eegkd.models.kv_cache import Cache
from eegkd.models.labram import LABRAM_CHANNELS, Labram, LabramConfig
from eegkd.models.layers import Projection
from eegkd.models.llava import (
    Llava,
    LlavaConfig,
    VisualProjector,
    arrange_patches,
    insert_visual,
)
from eegkd.models.llava_text import generate_text, score_text
from eegkd.models.lora import (
    LoraConfig,
    apply_adapted,
    find_linears,
    init_adapters,
    merge_adapters,
    unmerge_adapters,
)
from eegkd.models.pretrained import load_pretrained
from eegkd.models.prompts import Prompts
from eegkd.models.published import PUBLISHED, WeightsLicence, licences_of
from eegkd.models.saving import load_adapters, save_adapters, save_pretrained
from eegkd.models.score import score_continuations

__all__ = [
    "LABRAM_CHANNELS",
    "PATCH",
    "PUBLISHED",
    "TEN_TWENTY",
    "Bert",
    "BertConfig",
    "CBraMod",
    "CBraModConfig",
    "Cache",
    "Clip",
    "ClipConfig",
    "ClipText",
    "ClipTextConfig",
    "ClipVision",
    "ClipVisionConfig",
    "Conformer",
    "ConformerConfig",
    "Decoder",
    "DecoderConfig",
    "Decoding",
    "DlinkStudent",
    "DlinkStudentConfig",
    "EEGNet",
    "EEGNetConfig",
    "Generated",
    "GridConfig",
    "GridConv",
    "Labram",
    "LabramConfig",
    "LayerRouter",
    "LinearHead",
    "Llava",
    "LlavaConfig",
    "LoraConfig",
    "MultiHeadAlignment",
    "PatchEmbedding",
    "Projection",
    "Prompts",
    "RoutedTarget",
    "TaskHead",
    "TokenProjector",
    "VisualProjector",
    "WeightsLicence",
    "apply_adapted",
    "apply_params",
    "arrange_patches",
    "cbramod_head",
    "check_windows",
    "find_linears",
    "generate",
    "generate_text",
    "init_adapters",
    "insert_visual",
    "labram_head",
    "licences_of",
    "load_adapters",
    "load_pretrained",
    "merge_adapters",
    "pool_tokens",
    "prefill",
    "save_adapters",
    "save_pretrained",
    "score_continuations",
    "score_text",
    "skip_init",
    "unit_scale",
    "unmerge_adapters",
]
