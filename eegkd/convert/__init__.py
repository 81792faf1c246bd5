"""Weights of others as (path, array) pairs, by tables of names: NumPy only."""

from eegkd.convert.bert import load_bert
from eegkd.convert.safetensors import check_names, read_config, read_safetensors

__all__ = ["check_names", "load_bert", "read_config", "read_safetensors"]
