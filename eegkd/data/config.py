"""Options of the data: corpus, preprocessing and windows."""

import dataclasses
import math
from typing import Literal

from eegkd.errors import InputError
from eegkd.host.paths import PathText

MOST_RATE, MOST_ORDER, LEAST_NOTCH = 1e6, 20, 1.0
"""Limits of what a recording is resampled to, in Hz, of a filter, and of a line's
frequency, in Hz, whose harmonics are all removed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Corpus and preprocessing; None or () takes the corpus's own default.

    Attributes:
        corpus: Name of a corpus; for your own files, bids (a BIDS data set), folder
            (recordings) or arrays (windows that are cut already).
        root: Folder that holds the recordings; empty: the corpus's folder in
            $EEGKD_REAL_DATA.
        channels: Channels (or bipolar pairs "F3-C3") to keep, in this order; none
            named: all EEG channels, or the ECG leads where there are none.
        montage: Reference of the channels; average is that of all scalp electrodes of
            the recording, whichever are kept.
        policy: Treatment of channels that a recording lacks: stop with an error,
            interpolate from neighbours, or mask with zeros.
        rate: Resample to this many samples per second; None: 200.
        band: Band-pass edges in Hz; 0 is no edge, 0 0 no filter; None: 0.5 to 70.
        notch: Line frequency to remove, in Hz; 0 removes none.
        filter_order: Order of the zero-phase Butterworth band-pass.
        zscore: Samples over which a channel is brought to mean 0 and deviation 1: its
            window, its recording, all training windows (when they are loaded), or none.
        window_s: Window length in seconds; None: 4.
        overlap: Share of a window that the next one repeats, in training alone; None:
            0.
        positive_fraction: A window takes an event's label if at least this share of
            the window lies inside it.
        layout: Cap of the recordings where its electrodes have names of their own (A1
            to D32): those that lie at a place of the 10-20 system are named by it.
        unit: Unit of a folder's files where they state none.
        subject_from: Person of a folder's file whom neither labels.csv nor a BIDS word
            sub-XX names: its first sub-folder, its name (file), its name up to the
            first _ or - (prefix), or nobody (none); left out: the sub-folder, where it
            can be one.
        world: World of the synthetic corpus.
        seed: Seed of the synthetic corpus: which patients are drawn.
        label: Column that labels a BIDS data set: of events.tsv (default trial_type,
            else eventType, else value), participants.tsv, sessions.tsv or scans.tsv,
            also as participants.group; or an entity of file names, as task.
        classes: Labels of a BIDS data set that are classes, in this order; () is all.
        entities: Recordings of a BIDS data set to read: task-rest, ses-1, sub-01, eeg.
        trials: Cut one window of a BIDS data set from the onset of each event, however
            long it lasts.
        workers: Processes that read recordings; 0 is one per core.
    """

    corpus: str = "synthetic"
    root: PathText = ""
    channels: tuple[str, ...] = ()
    montage: Literal["referential", "average", "double_banana"] | None = None
    policy: Literal["error", "interpolate", "mask"] = "error"
    rate: float | None = None
    band: tuple[float, float] | None = None
    notch: float | None = None
    filter_order: int = 4
    zscore: Literal["window", "recording", "train_set", "none"] = "window"
    window_s: float | None = None
    overlap: float | None = None
    positive_fraction: float = 0.5
    layout: (
        Literal[
            "biosemi16",
            "biosemi32",
            "biosemi64",
            "biosemi128",
            "biosemi160",
            "biosemi256",
        ]
        | None
    ) = None
    unit: Literal["uV", "mV", "V"] | None = None
    subject_from: Literal["folder", "file", "prefix", "none"] | None = None
    world: Literal["transfer", "null", "layered", "layered_null"] = "transfer"
    seed: int = 0
    label: str = ""
    classes: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    trials: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        """Checks what is no number, or would take any amount of time and memory.

        What fits a recording is checked beside it.
        """
        edges = {"band": self.band or (), "notch": (self.notch or 0.0,)}
        for name, values in edges.items():
            if not all(map(math.isfinite, values)):
                raise InputError(
                    f"--data.{name} {' '.join(f'{x:g}' for x in values)}: give numbers "
                    "of Hz; 0 is none."
                )
        if self.window_s is not None and not 0 < self.window_s < math.inf:
            raise InputError(
                f"--data.window_s must be a number of seconds above 0, got "
                f"{self.window_s:g}."
            )
        if self.rate is not None and MOST_RATE < self.rate < math.inf:
            raise InputError(
                f"--data.rate is at most {MOST_RATE:g}, got {self.rate:g}."
            )
        if self.notch and 0 < self.notch < LEAST_NOTCH:
            raise InputError(
                f"--data.notch is 0 or at least {LEAST_NOTCH:g} Hz, got {self.notch:g}."
            )
        if self.filter_order > MOST_ORDER:
            raise InputError(
                f"--data.filter_order is at most {MOST_ORDER}, got {self.filter_order}."
            )
        if self.workers < 0:
            raise InputError(f"--data.workers is at least 0, got {self.workers}.")
