"""A corpus of short recordings, one array a person: `anna.npy` is `[2, t]` in uV."""

import numpy as np

from eegkd.data.corpora import Corpus, Source
from eegkd.data.recordings.recording import Event, Recording

RATE, BLOCK_S = 50.0, 3.0


def list_sources(root):
    """Returns one source per array."""
    return tuple(Source(p.stem, p, subject=p.stem) for p in sorted(root.glob("*.npy")))


def read(source):
    """Reads one recording; rest and task alternate."""
    signal = np.load(source.path)
    events = tuple(
        Event(onset_s=start * BLOCK_S, duration_s=BLOCK_S, label=CLASSES[start % 2])
        for start in range(int(signal.shape[1] / RATE / BLOCK_S))
    )
    return Recording(
        signal=signal,
        channels=("C3", "C4"),
        kinds=("eeg", "eeg"),
        units=("uV", "uV"),
        rate=RATE,
        events=events,
        subject=source.subject,
        source=str(source.path),
    )


def divide(subjects):
    """Divides persons as published."""
    return {"train": subjects[:4], "val": subjects[4:5], "test": subjects[5:]}


CLASSES = ("rest", "task")
CORPUS = Corpus(
    name="pulses",
    classes=CLASSES,
    background=None,
    list_sources=list_sources,
    read=read,
    defaults={"rate": RATE, "band": (0.0, 0.0), "window_s": 1.0, "overlap": 0.0},
    fixed_split=divide,
)
