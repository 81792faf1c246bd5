"""Facts of the data that a system must know."""

import dataclasses
from typing import ClassVar

from eegkd.data.windows.store import WindowStore


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalConfig:
    """Inputs and classes of a system; filled from the window store if there is one.

    Attributes:
        n_chans: EEG channels.
        n_times: Samples per window.
        rate: Samples per second.
        classes: Class names.
        channels: Names of the channels; () where unknown.
        units: One per channel: "uV", "mV" or "zscore"; () where unknown.
        multilabel: True if a label is a 0/1 row over the classes.
    """

    n_chans: int = 19
    n_times: int = 800
    rate: float = 200.0
    classes: tuple[str, ...] = ("background", "seizure")
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    multilabel: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """Options that every system and every run has.

    Attributes:
        signal: Inputs and classes. A run reads them from its windows: they are for
            `plan` and `bench` without a store.
        student_channels: Channels that the student, its controls and its baselines see,
            out of the teacher's; empty: all.
        student_options: Names of options, or of groups of them, that no stage before
            the student reads; `signal` and `student_channels` need not be named.
    """

    student_options: ClassVar[tuple[str, ...]] = ()

    signal: SignalConfig = SignalConfig()
    student_channels: tuple[str, ...] = ()


def signal_of(store: WindowStore) -> SignalConfig:
    """Reads the `SignalConfig` of a store."""
    manifest = store.manifest
    channels, units = tuple(manifest["channels"]), tuple(manifest["units"])
    if manifest["preprocessing"].get("zscore", "none") != "none":
        units = ("zscore",) * len(channels)  # A window's, or a training set's.
    return SignalConfig(
        n_chans=store.signal.shape[1],
        n_times=store.signal.shape[2],
        rate=manifest["rate"],
        classes=tuple(manifest["classes"]),
        channels=channels,
        units=units,
        multilabel=store.labels.ndim > 1,
    )
