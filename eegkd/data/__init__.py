"""Recordings in, labelled windows out: NumPy only."""

from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus, Source, get_corpus
from eegkd.data.reading import read_recording
from eegkd.data.recording import Event, Recording
from eegkd.data.store import WindowStore

__all__ = [
    "Corpus",
    "DataConfig",
    "Event",
    "Recording",
    "Source",
    "WindowStore",
    "get_corpus",
    "read_recording",
]
