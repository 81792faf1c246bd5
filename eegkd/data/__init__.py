"""Recordings in, labelled windows out: NumPy only."""

from eegkd.data.augment import AugmentConfig
from eegkd.data.cache import TeacherCache, TeacherTensor, open_cache
from eegkd.data.config import CacheConfig, DataConfig
from eegkd.data.corpora import Corpus, Source, get_corpus
from eegkd.data.reading import read_recording
from eegkd.data.recording import Event, Recording
from eegkd.data.store import WindowStore

__all__ = [
    "AugmentConfig",
    "CacheConfig",
    "Corpus",
    "DataConfig",
    "Event",
    "Recording",
    "Source",
    "TeacherCache",
    "TeacherTensor",
    "WindowStore",
    "get_corpus",
    "open_cache",
    "read_recording",
]
