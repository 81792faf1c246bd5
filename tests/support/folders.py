"""Folders of short recordings, as anyone might have them."""

import pickle
import zlib

import numpy as np

from eegkd.data import get_corpus
from tests.support.edf import write_edf


def noise(channels=2, seconds=6, rate=100, seed=0):
    return 30 * np.random.default_rng(seed).normal(size=(channels, seconds * rate))


def put(path, *, seconds=6, seed=None, **options):
    """Writes noise as an EDF file, other noise for another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(str(path).encode()) if seed is None else seed
    signal = noise(seconds=seconds, seed=seed)
    return write_edf(path, signal, ["Fz", "Cz"], **options)


def label(root, text, name="labels.csv"):
    (root / name).write_text(text)


def read_all(root, **options):
    corpus = get_corpus("folder", root, **options)
    sources = corpus.list_sources(root)
    read = pickle.loads(pickle.dumps(corpus.read))
    return corpus, {s.recording_id: read(s) for s in sources}


def spans(recording):
    return [(e.onset_s, e.duration_s, e.label) for e in recording.events]


def put_annotations(path, annotations, start=b"01.01.2000.00.00"):
    """Writes an EDF+ file of annotations alone."""
    tal = b"+0\x14\x14\0" + b"".join(
        b"+%g\x15%g\x14%s\x14\0" % (onset, duration, text.encode())
        for onset, duration, text in annotations
    )
    tal += b"\0" * (len(tal) % 2)
    cells = [("EDF Annotations", 16), ("", 80), ("", 8), ("-1", 8), ("1", 8)]
    cells += [("-32768", 8), ("32767", 8), ("", 80), (str(len(tal) // 2), 8), ("", 32)]
    head = "0".ljust(8) + "X X X X".ljust(80) + "Startdate X X X X".ljust(80)
    head += start.decode() + "512".ljust(8) + "EDF+C".ljust(44)
    head += "1".ljust(8) + "0".ljust(8) + "1".ljust(4)
    head += "".join(text.ljust(width) for text, width in cells)
    path.write_bytes(head.encode("latin-1") + tal)
    return path
