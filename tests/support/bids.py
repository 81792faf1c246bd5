"""Writes small BIDS data sets of EDF recordings, and reads them."""

import json
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eegkd.data import get_corpus
from tests.support.edf import write_edf

NAMES = ("Fz", "Cz", "EOG1")
SECONDS = 20


def noise(seconds=SECONDS, rate=100, seed=0, num_channels=3):
    return 30 * np.random.default_rng(seed).normal(size=(num_channels, seconds * rate))


def put_table(path: Path, *rows: Sequence[object], encoding="utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    path.write_bytes(text.encode(encoding))
    return path


def put_json(path: Path, **fields: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
    return path


def put_recording(root: Path, name: str, *, names=NAMES, **options) -> Path:
    """Writes `sub-01_ses-2_task-x_eeg.edf` where BIDS has it."""
    words = [word for word in name.split("_") if word.startswith(("sub-", "ses-"))]
    folder = root.joinpath(*words, "ieeg" if "_ieeg" in name else "eeg")
    folder.mkdir(parents=True, exist_ok=True)
    seconds, rate = options.pop("seconds", SECONDS), options.get("rate", 100)
    signal = options.pop("signal", None)
    if signal is None:
        seed = zlib.crc32(name.encode())
        signal = noise(seconds, rate, seed=seed, num_channels=len(names))
    return write_edf(folder / name, signal, names, **options)


def put_events(recording: Path, *rows, columns=("onset", "duration", "trial_type")):
    name = recording.name.rpartition("_")[0] + "_events.tsv"
    return put_table(recording.with_name(name), columns, *rows)


def put_channels(recording: Path, *rows, columns=("name", "type", "units", "status")):
    name = recording.name.rpartition("_")[0] + "_channels.tsv"
    return put_table(recording.with_name(name), columns, *rows)


def put_dataset(root: Path, **fields: object) -> Path:
    return put_json(
        root / "dataset_description.json", Name="x", BIDSVersion="1.10.0", **fields
    )


def read_all(root, **options):
    corpus = get_corpus("bids", root, **options)
    sources = corpus.list_sources(root)
    read = pickle.loads(pickle.dumps(corpus.read))
    return corpus, {s.recording_id.split("/")[-1]: read(s) for s in sources}


def read_one(root, **options):
    corpus, recordings = read_all(root, **options)
    (recording,) = recordings.values()
    return corpus, recording


def spans(recording):
    return [(e.onset_s, e.duration_s, e.label) for e in recording.events]


def ids(root, **options):
    corpus = get_corpus("bids", root, **options)
    return [source.recording_id for source in corpus.list_sources(root)]


def make(root, name="sub-01_task-x_eeg.edf", **options):
    """Writes a data set of one recording, or one more into it."""
    put_dataset(root)
    return put_recording(root, name, **options)
