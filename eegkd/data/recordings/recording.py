"""A recording in memory: signals with their units, rate, events and origin."""

import dataclasses
import datetime
from typing import Literal

import numpy as np
from jaxtyping import Float32

Kind = Literal["eeg", "eog", "emg", "ecg", "misc"]
Unit = Literal["uV", "mV", "zscore", "n/a"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """A labelled stretch of a recording; no channels means all of them."""

    onset_s: float
    duration_s: float
    label: str
    channels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch that is not to be used, and why; no channels means all of them."""

    onset_s: float
    duration_s: float
    reason: str
    channels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What a preprocessed recording was before.

    Attributes:
        rate: Samples per second, as recorded.
        units: One per channel, as read.
        scale: What a z-score over the recording divided each channel by, in its unit;
            () is none.
    """

    rate: float
    units: tuple[Unit, ...]
    scale: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """Signals of one recording.

    Attributes:
        signal: Channels by samples, each in its channel's unit.
        channels: Canonical 10-20 or lead names.
        kinds: "eeg", "eog", "emg", "ecg" or "misc", per channel.
        units: "uV", "mV" or "zscore", per channel; never guessed. "n/a" where a misc
            channel is no voltage.
        rate: Samples per second.
        events: Annotations, in time order.
        subject: The person, in BIDS words: "01" of "sub-01".
        session: The visit, or "".
        source: The file (or files) it was read from.
        reference: Electrodes whose average was subtracted; () is none.
        filled: Channels without a recorded signal of their own, which the channel
            policy interpolated or set to zero.
        bad_channels: Canonical names of channels that the file, or a table beside it,
            marks as bad: they count as missing.
        bad_spans: Stretches that are not to be used: windows that one of them touches
            are unlabelled, and counted by reason.
        resampled: Channels whose own rate was lower, which were brought to `rate`.
        notes: Sentences about what was read in another way than the file says it.
        date: Start of the recording by its file's clock; None where it states none.
        origin: What it was before it was preprocessed; None as read.
    """

    signal: Float32[np.ndarray, "c t"]
    channels: tuple[str, ...]
    kinds: tuple[Kind, ...]
    units: tuple[Unit, ...]
    rate: float
    events: tuple[Event, ...] = ()
    subject: str = ""
    session: str = ""
    source: str = ""
    reference: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    bad_channels: tuple[str, ...] = ()
    bad_spans: tuple[Span, ...] = ()
    resampled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    date: datetime.datetime | None = None
    origin: Origin | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.signal.shape[1] / self.rate
