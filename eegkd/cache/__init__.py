"""Outputs of any stage, or of any framework, on disk by window id: NumPy only."""

from eegkd.cache.config import CacheConfig
from eegkd.cache.external import ExternalOutputs, open_external
from eegkd.cache.fill import CachePlan, fill_cache, make_plan
from eegkd.cache.forms import TensorForm, choose_form
from eegkd.cache.read import TeacherCache, TeacherTensor, open_cache

__all__ = [
    "CacheConfig",
    "CachePlan",
    "ExternalOutputs",
    "TeacherCache",
    "TeacherTensor",
    "TensorForm",
    "choose_form",
    "fill_cache",
    "make_plan",
    "open_cache",
    "open_external",
]
