"""Bonn: five sets of 100 single-channel segments, 4,097 samples at 173.61 Hz.

Z and O are scalp EEG of healthy persons (eyes open, closed), N and F intracranial EEG
between seizures (opposite hemisphere, epileptogenic zone), S seizures. The files name
no persons, so no split by subject exists.

References:
    Andrzejak et al. 2001, Physical Review E 64, 061907.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from eegkd.data.corpora import Corpus, Source, folder_of
from eegkd.data.recordings.recording import Event, Recording
from eegkd.errors import InputError

CLASSES = ("Z", "O", "N", "F", "S")
RATE = 173.61
NUM_SAMPLES = 4097
_SEGMENT = re.compile(r"([ZONFS])(\d{3})\.txt", re.IGNORECASE)


def list_sources(root: Path) -> tuple[Source, ...]:
    """Lists the segments of the zips below root, or of the folders they unpack to."""
    folder = folder_of(root, "bonn")
    sources: dict[str, Source] = {}
    for path, member in _files(folder):
        match = _SEGMENT.fullmatch(PurePosixPath(member or path.name).name)
        if match:
            name = f"{match[1].upper()}{match[2]}"
            source = Source(name, path, member, name, info={"label": name[0]})
            # An unpacked folder next to its zip holds the same segments.
            sources.setdefault(name, source)
    if not sources:
        raise InputError(
            f"{folder}: no Bonn segments (Z001.txt ... S100.txt, or the zips that hold "
            "them). Set --data.root to their folder."
        )
    return tuple(
        sources[name]
        for name in sorted(sources, key=lambda x: (CLASSES.index(x[0]), x))
    )


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields text files below a folder, and members of the zips in it."""
    for path in sorted(folder.rglob("*")):
        if "__MACOSX" in path.parts:
            continue
        if path.suffix.lower() == ".txt":
            yield path, ""
        elif path.suffix.lower() == ".zip":
            try:
                with zipfile.ZipFile(path) as archive:
                    names = archive.namelist()
            except zipfile.BadZipFile as error:
                raise InputError(
                    f"{path}: not a whole zip file ({error}). Download it again."
                ) from error
            for name in names:
                if not name.startswith("__MACOSX"):
                    yield path, name


def read(source: Source) -> Recording:
    """Reads one segment; its numbers are microvolts."""
    where = f"{source.path}/{source.member}" if source.member else str(source.path)
    if source.member:
        with zipfile.ZipFile(source.path) as archive:
            text = archive.read(source.member).decode("ascii", "replace")
    else:
        text = source.path.read_text("ascii", "replace")
    try:
        signal = np.loadtxt(io.StringIO(text), dtype=np.float32, ndmin=1)
    except ValueError as error:
        raise InputError(f"{where}: not one number a line ({error}).") from error
    if signal.shape != (NUM_SAMPLES,):
        raise InputError(
            f"{where}: truncated or no Bonn segment: {signal.size} samples where "
            f"{NUM_SAMPLES} belong. Download it again."
        )
    duration = NUM_SAMPLES / RATE
    label = source.info["label"]
    return Recording(
        signal=signal[None],
        channels=("EEG",),
        kinds=("eeg",),
        units=("uV",),
        rate=RATE,
        events=(Event(onset_s=0.0, duration_s=duration, label=label),),
        subject=source.subject,
        source=where,
    )


CORPUS = Corpus(
    name="bonn",
    classes=CLASSES,
    background=None,
    list_sources=list_sources,
    read=read,
    defaults={"channels": ("EEG",), "band": (0.5, 40.0)},
    has_subjects=False,
    collection="seizure_bonn",
    licence="unclear: no redistribution (Andrzejak et al. 2001)",
)
