"""EEGMMIDB: imagined movements, 109 persons, 64 electrodes at 160 Hz (PhysioNet).

Every person has 14 runs, `S001/S001R01.edf` and so on. In runs 4, 8 and 12 the left or
the right fist is imagined (marks T1, T2), in 6, 10 and 14 both fists or both feet. The
other runs, rest and executed movements, are left aside. A window is the 4 s after a
mark. `--split fixed` is the CBraMod benchmark's: persons 1-70, 71-89 and 90-109.

S088, S092 and S100 were recorded at 128 Hz; studies often leave them out, and S089,
S104 and S106 for their marks. The benchmark keeps them all, and so does this.

References:
    Schalk et al. 2004, BCI2000: a general-purpose brain-computer interface system;
    Goldberger et al. 2000 (PhysioNet); wjq-learning/CBraMod, `preprocessing/`.

Note:
    Filters are this library's: a squared Butterworth in place of MNE's FIR. The
    benchmark's windows are microvolts: add `--data.zscore none`.
"""

import dataclasses
import functools
import re
from pathlib import Path

from eegkd.data.corpora import Corpus, Source, folder_of, split_by_number
from eegkd.data.recordings.reading import read_recording
from eegkd.data.recordings.recording import Recording
from eegkd.errors import InputError

CLASSES = ("left_fist", "right_fist", "both_fists", "both_feet")
CHANNELS = (
    *("FC5", "FC3", "FC1", "FCz", "FC2", "FC4", "FC6"),
    *("C5", "C3", "C1", "Cz", "C2", "C4", "C6"),
    *("CP5", "CP3", "CP1", "CPz", "CP2", "CP4", "CP6"),
    *("Fp1", "Fpz", "Fp2", "AF7", "AF3", "AFz", "AF4", "AF8"),
    *("F7", "F5", "F3", "F1", "Fz", "F2", "F4", "F6", "F8"),
    *("FT7", "FT8", "T7", "T8", "T9", "T10", "TP7", "TP8"),
    *("P7", "P5", "P3", "P1", "Pz", "P2", "P4", "P6", "P8"),
    *("PO7", "PO3", "POz", "PO4", "PO8", "O1", "Oz", "O2", "Iz"),
)
_ONE_FIST, _BOTH = (4, 8, 12), (6, 10, 14)
_FILE = re.compile(r"S(\d{3})R(\d{2})\.edf", re.IGNORECASE)
_MARKS = ("T0", "T1", "T2")


def list_sources(root: Path) -> tuple[Source, ...]:
    """Lists the runs of imagined movements anywhere below root."""
    folder = folder_of(root, "eegmmidb")
    found: dict[str, Source] = {}
    for path in sorted(folder.rglob("*")):
        match = _FILE.fullmatch(path.name)
        if match is None or int(match[2]) not in (*_ONE_FIST, *_BOTH):
            continue
        info = {"labels": CLASSES[:2] if int(match[2]) in _ONE_FIST else CLASSES[2:]}
        name = path.stem.upper()
        found.setdefault(name, Source(name, path, subject=match[1], info=info))
    if not found:
        raise InputError(
            f"{folder}: none of the runs 4, 6, 8, 10, 12, 14 (S001R04.edf ...). Set "
            "--data.root to the folder of the EEGMMIDB recordings."
        )
    return tuple(found[name] for name in sorted(found))


def read(source: Source) -> Recording:
    """Reads one run; its marks T1 and T2 are the trials, T0 (rest) is none.

    Raises:
        InputError: If the file has no marks, or others.
    """
    recording = read_recording(source.path)
    labels: dict[str, str] = dict(zip(_MARKS[1:], source.info["labels"], strict=True))
    strange = sorted({e.label for e in recording.events} - set(_MARKS))
    trials = tuple(e for e in recording.events if e.label in labels)
    if strange or not trials:
        raise InputError(
            f"{source.path}: marks {', '.join(strange) or 'T1 and T2 are missing'}, "
            "where EEGMMIDB's runs have T0, T1 and T2. Download the file again; its "
            "marks lie in the .edf itself."
        )
    return dataclasses.replace(
        recording,
        events=tuple(dataclasses.replace(e, label=labels[e.label]) for e in trials),
        subject=source.subject,
    )


CORPUS = Corpus(
    name="eegmmidb",
    classes=CLASSES,
    background=None,
    list_sources=list_sources,
    read=read,
    defaults={
        "channels": CHANNELS,
        "montage": "average",
        "band": (0.3, 0.0),
        "notch": 60.0,
    },
    # That of the CBraMod benchmark: 70, 19 and 20 persons.
    fixed_split=functools.partial(
        split_by_number,
        ends=(70, 89),
        needs="EEGMMIDB split needs persons up to 70 (training), 71-89 (validation) "
        "and 90-109 (test)",
    ),
    licence="ODC-By 1.0 (Schalk et al. 2004, PhysioNet)",
    trials=True,
    collection="mi_eegmmidb",
)
