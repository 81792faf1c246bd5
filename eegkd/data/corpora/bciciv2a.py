"""BCI Competition IV, data set 2a: four imagined movements, 9 persons, 22 electrodes.

GDF files at 250 Hz: `A01T.gdf` (first day) to `A09E.gdf` (second day), 288 trials each.
A trial begins with a fixation cross; 2 s later a cue says what to imagine until second
6. A window is those 4 s from the cue on. The first day's cues name the class (769-772),
the second day's do not (783): their classes are in `A01E.mat` ... of the competition's
true_labels.zip, which belong anywhere below the same folder.

`--split fixed` is the CBraMod benchmark's: persons 1-5, 6-7 and 8-9, both days. All
trials are kept, those that were marked as artefacts too, as there.

References:
    Brunner et al. 2008, BCI Competition 2008 - Graz data set A;
    wjq-learning/CBraMod, `preprocessing/`.

Note:
    The benchmark filters trial by trial, causally, with a Butterworth of order 5; here
    the whole recording is filtered without phase shift. Its windows are microvolts: add
    `--data.zscore none`.
"""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np

from eegkd.data.corpora import Corpus, Source, folder_of, split_by_number
from eegkd.data.recordings.reading import read_recording
from eegkd.data.recordings.recording import Event, Recording
from eegkd.errors import InputError

CLASSES = ("left_hand", "right_hand", "feet", "tongue")
CHANNELS = (
    *("Fz", "FC3", "FC1", "FCz", "FC2", "FC4", "C5", "C3", "C1", "Cz", "C2", "C4"),
    *("C6", "CP3", "CP1", "CPz", "CP2", "CP4", "P1", "Pz", "P2", "POz"),
)
TRIAL_S = 4.0
_CUES = {"769": 0, "770": 1, "771": 2, "772": 3}
_UNKNOWN_CUE = "783"
_NAMED = {0: "EEG-Fz", 7: "EEG-C3", 9: "EEG-Cz", 11: "EEG-C4", 19: "EEG-Pz"}
"""The electrodes that the files name, by their place; the others are called EEG."""
_FILE = re.compile(r"A(\d\d)([TE])\.(gdf|mat)", re.IGNORECASE)


def list_sources(root: Path) -> tuple[Source, ...]:
    """Lists the recordings, and the files of labels, anywhere below root."""
    folder = folder_of(root, "bciciv2a")
    files: dict[str, dict[str, Path]] = {"gdf": {}, "mat": {}}
    for path in sorted(folder.rglob("*")):
        match = _FILE.fullmatch(path.name)
        if match:
            files[match[3].lower()].setdefault(path.stem.upper(), path)
    if not files["gdf"]:
        raise InputError(
            f"{folder}: no A01T.gdf ... A09E.gdf in it. Set --data.root to the folder "
            "of BCICIV_2a_gdf.zip."
        )
    return tuple(
        Source(
            recording_id=name,
            path=path,
            subject=name[:3],
            session=name[3],
            info={"labels": str(files["mat"].get(name, ""))},
        )
        for name, path in sorted(files["gdf"].items())
    )


def read(source: Source) -> Recording:
    """Reads one day of one person; every trial is an event of 4 s from its cue on.

    Raises:
        InputError: If the channels are others, or the labels are missing or others.
    """
    recording = read_recording(source.path)
    num = len(CHANNELS)
    given = recording.channels[:num]
    if len(given) < num or any(given[i] != name for i, name in _NAMED.items()):
        raise InputError(
            f"{source.path}: channels {', '.join(recording.channels)}, where data set "
            "2a has EEG-Fz, six called EEG, EEG-C3, and so on. Use the files of "
            "BCICIV_2a_gdf.zip."
        )
    return dataclasses.replace(
        recording,
        signal=_bridge_gaps(source, recording),
        channels=CHANNELS,
        kinds=recording.kinds[:num],
        units=recording.units[:num],
        events=_trials(source, recording.events),
        subject=source.subject,
        session=source.session,
    )


def _bridge_gaps(source: Source, recording: Recording) -> np.ndarray:
    """Draws a line through the 100 samples between runs, which were not recorded.

    The file holds the lowest number there is in all channels at once; a filter would
    ring from it into the next trial.

    Raises:
        InputError: If such a gap lies in a trial.
    """
    signal = recording.signal[: len(CHANNELS)].copy()
    gap = (signal == signal.min(axis=1, keepdims=True)).all(axis=0)
    for event in recording.events:
        start = round(event.onset_s * recording.rate)
        stop = start + round(TRIAL_S * recording.rate)
        if event.label in (*_CUES, _UNKNOWN_CUE) and gap[start:stop].any():
            raise InputError(
                f"{source.path}: samples are missing in the trial at "
                f"{event.onset_s:g} s. Download the file again."
            )
    time = np.arange(signal.shape[1])
    if gap.any() and not gap.all():
        for row in signal:
            row[gap] = np.interp(time[gap], time[~gap], row[~gap])
    return signal


def _trials(source: Source, events: tuple[Event, ...]) -> tuple[Event, ...]:
    cues = [e for e in events if e.label in (*_CUES, _UNKNOWN_CUE)]
    if not cues:
        raise InputError(
            f"{source.path}: no cues (769 to 772, or 783) among its events. Download "
            "the file again."
        )
    if any(cue.label == _UNKNOWN_CUE for cue in cues):
        classes = _read_labels(source, len(cues))
    else:
        classes = [_CUES[cue.label] for cue in cues]
    return tuple(
        Event(onset_s=cue.onset_s, duration_s=TRIAL_S, label=CLASSES[index])
        for cue, index in zip(cues, classes, strict=True)
    )


def _read_labels(source: Source, num: int) -> list[int]:
    """Reads the classes of the second day's trials.

    Raises:
        InputError: If there are none, or not one per trial.
    """
    from scipy.io import loadmat

    path = source.info["labels"]
    if not path:
        raise InputError(
            f"{source.path}: its cues do not name the classes, and there is no "
            f"{source.recording_id}.mat below --data.root that does. Unpack the "
            "competition's true_labels.zip there, or move the file away."
        )
    try:
        found = loadmat(path, variable_names=["classlabel"])
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: no MAT file that can be read ({error}). Unpack true_labels.zip "
            "again."
        ) from error
    labels = np.asarray(found.get("classlabel", [])).reshape(-1)
    if len(labels) != num or not np.isin(labels, range(1, len(CLASSES) + 1)).all():
        raise InputError(
            f"{path}: `classlabel` holds {len(labels)} numbers, where {source.path} "
            f"has {num} trials, each of 1 to {len(CLASSES)}. Use the competition's "
            "true_labels.zip."
        )
    return [int(label) - 1 for label in labels]


CORPUS = Corpus(
    name="bciciv2a",
    classes=CLASSES,
    background=None,
    list_sources=list_sources,
    read=read,
    defaults={"channels": CHANNELS, "montage": "average", "band": (0.3, 40.0)},
    # That of the CBraMod benchmark: persons 1-5, 6-7 and 8-9.
    fixed_split=functools.partial(
        split_by_number,
        ends=(5, 7),
        needs="split of data set 2a needs persons up to A05 (training), A06 or A07 "
        "(validation) and A08 or A09 (test)",
    ),
    licence="CC-BY-ND 4.0 as BNCI Horizon 2020 states it (Brunner et al. 2008)",
    trials=True,
)
