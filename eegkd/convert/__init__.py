"""Weights of others as (path, array) pairs, by tables of names: NumPy only."""

from eegkd.convert.bert import load_bert
from eegkd.convert.cbramod import load_cbramod
from eegkd.convert.clip import load_clip
from eegkd.convert.decoder import load_decoder
from eegkd.convert.files import read_torch, read_weights
from eegkd.convert.keras import load_eegnet
from eegkd.convert.labram import load_labram
from eegkd.convert.llava import load_llava
from eegkd.convert.peft import load_peft
from eegkd.convert.safetensors import check_names, read_config, read_safetensors

__all__ = [
    "check_names",
    "load_bert",
    "load_cbramod",
    "load_clip",
    "load_decoder",
    "load_eegnet",
    "load_labram",
    "load_llava",
    "load_peft",
    "read_config",
    "read_safetensors",
    "read_torch",
    "read_weights",
]
