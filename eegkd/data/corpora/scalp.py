"""One seizure of one patient: 500 s of 21 scalp channels at 100 Hz, as text files.

`ch01.inp` to `ch21.inp` hold one number per line. SP1 and SP2 are corrupt and left out.
No unit is stated; the numbers are of the size of microvolts and taken for them (a
z-score undoes the choice). The onset is the midpoint that the data's authors give, not
an expert's mark, and the end is where the strong power ends: this recording shows that
a path works, not how accurate a model is.

References:
    Ombao et al. 2001, Journal of the American Statistical Association 96, 543-560.
"""

from pathlib import Path

import numpy as np

from eegkd.data.corpora import Corpus, Source, folder_of
from eegkd.data.recordings.names import canonical_name
from eegkd.data.recordings.recording import Event, Recording
from eegkd.errors import InputError

RATE = 100.0
ONSET_S = 336.6
END_S = 450.0
FILE_CHANNELS = (
    *("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "SP1", "SP2"),
    *("F7", "F8", "T3", "T4", "T5", "T6", "Fz", "Cz", "Pz"),
)
_FILES = {
    canonical_name(name): f"ch{number:02d}.inp"
    for number, name in enumerate(FILE_CHANNELS, start=1)
    if not name.startswith("SP")
}
CHANNELS = tuple(_FILES)


def list_sources(root: Path) -> tuple[Source, ...]:
    """Finds the folder of `ch01.inp` at or below root: one recording."""
    folder = folder_of(root, "scalp")
    first = min(folder.rglob("ch01.inp"), default=None)
    if first is None:
        raise InputError(
            f"{folder}: no ch01.inp in it. Set --data.root to the folder of the 21 "
            "channel files."
        )
    return (Source("scalp", first.parent, subject="01"),)


def read(source: Source) -> Recording:
    """Reads the 19 sound channels; the seizure is the one event."""
    signal = np.stack([_read_channel(source.path / file) for file in _FILES.values()])
    seizure = Event(onset_s=ONSET_S, duration_s=END_S - ONSET_S, label="seizure")
    return Recording(
        signal=signal,
        channels=CHANNELS,
        kinds=("eeg",) * len(CHANNELS),
        units=("uV",) * len(CHANNELS),
        rate=RATE,
        events=(seizure,),
        subject=source.subject,
        source=str(source.path),
    )


def _read_channel(path: Path) -> np.ndarray:
    try:
        values = np.loadtxt(path, dtype=np.float32, ndmin=1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a file of one number a line ({error}). Copy it again."
        ) from error
    if values.shape != (50_000,):
        raise InputError(
            f"{path}: truncated: {values.size} samples where 50000 belong. Copy it "
            "again."
        )
    return values


CORPUS = Corpus(
    name="scalp",
    classes=("background", "seizure"),
    background="background",
    list_sources=list_sources,
    read=read,
    defaults={"channels": CHANNELS, "band": (0.5, 40.0)},
    licence="none stated: no redistribution (Ombao et al. 2001)",
    collection="seizure_scalp",
)
