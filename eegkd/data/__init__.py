"""Recordings in, labelled windows out: NumPy only."""

from eegkd.cache.config import CacheConfig
from eegkd.cache.read import TeacherCache, TeacherTensor, open_cache
from eegkd.data.batches.augment import AugmentConfig
from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus, Source, get_corpus
from eegkd.data.images.anyres import AnyresConfig, row_index, stack_tiles
from eegkd.data.language.conversations import Conversation, Turn, prepare_conversations
from eegkd.data.language.packing import (
    TextPart,
    VisualPart,
    pack_row,
    pack_rows,
    split_at_images,
)
from eegkd.data.recordings.reading import read_recording
from eegkd.data.recordings.recording import Event, Recording, Span
from eegkd.data.windows.store import WindowStore

__all__ = [
    "AnyresConfig",
    "AugmentConfig",
    "CacheConfig",
    "Conversation",
    "Corpus",
    "DataConfig",
    "Event",
    "Recording",
    "Source",
    "Span",
    "TeacherCache",
    "TeacherTensor",
    "TextPart",
    "Turn",
    "VisualPart",
    "WindowStore",
    "get_corpus",
    "open_cache",
    "pack_row",
    "pack_rows",
    "prepare_conversations",
    "read_recording",
    "row_index",
    "split_at_images",
    "stack_tiles",
]
