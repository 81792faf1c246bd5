"""EEGMAT: rest and mental arithmetic, 36 persons, 19 electrodes at 500 Hz.

Every person has two files: `SubjectNN_1.edf`, about 182 s at rest, and
`SubjectNN_2.edf`, 62 s of serial subtraction. The class is the file, and rest always
comes first, so an order effect is confounded with it.

References:
    Zyma et al. 2019, Electroencephalograms during mental arithmetic task performance.
"""

import dataclasses
import functools
import re
from pathlib import Path

from eegkd.data.corpora import Corpus, Source, folder_of, split_by_number
from eegkd.data.recordings.reading import read_recording
from eegkd.data.recordings.recording import Event, Recording
from eegkd.errors import InputError

CLASSES = ("rest", "task")
CHANNELS = (
    *("Fp1", "Fp2", "F3", "F4", "F7", "F8", "T7", "T8", "C3", "C4"),
    *("P7", "P8", "P3", "P4", "O1", "O2", "Fz", "Cz", "Pz"),
)
_FILE = re.compile(r"Subject(\d+)_([12])\.edf", re.IGNORECASE)


def list_sources(root: Path) -> tuple[Source, ...]:
    """Lists the files `SubjectNN_1.edf` and `SubjectNN_2.edf` anywhere below root."""
    folder = folder_of(root, "eegmat")
    found = []
    for path in sorted(folder.rglob("*")):
        match = _FILE.fullmatch(path.name)
        if match:
            subject, digit = match.groups()
            info = {"label": CLASSES[int(digit) - 1]}
            found.append(Source(path.stem, path, subject=subject, info=info))
    if not found:
        raise InputError(
            f"{folder}: no SubjectNN_1.edf or SubjectNN_2.edf in it. Set --data.root "
            "to the folder of the EEGMAT recordings."
        )
    return tuple(found)


def read(source: Source) -> Recording:
    """Reads one file; one event over all of it carries the class."""
    recording = read_recording(source.path)
    whole = Event(
        onset_s=0.0, duration_s=recording.duration_s, label=source.info["label"]
    )
    return dataclasses.replace(recording, events=(whole,), subject=source.subject)


CORPUS = Corpus(
    name="eegmat",
    classes=CLASSES,
    background=None,
    list_sources=list_sources,
    read=read,
    defaults={"channels": CHANNELS, "band": (0.5, 45.0), "notch": 50.0},
    # That of the CBraMod benchmark: 28, 4 and 4 persons in file order.
    fixed_split=functools.partial(
        split_by_number,
        ends=(27, 31),
        needs="EEGMAT split needs persons below 28 (training), 28-31 (validation) and "
        "32-35 (test)",
    ),
    licence="ODC-By 1.0 (Zyma et al. 2019)",
    collection="eegmat",
)
