"""What a system must know of the data it runs on."""

import dataclasses
from typing import ClassVar

from eegkd.data.windows.store import WindowStore


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalConfig:
    """What goes in and comes out; filled from the window store where there is one.

    Attributes:
        n_chans: EEG channels.
        n_times: Samples per window.
        rate: Samples per second.
        classes: Class names.
        channels: Their names, for models that know them; () where unknown.
        units: One per channel: "uV", "mV" or "zscore"; () where unknown.
        multilabel: Whether a label is a 0/1 row over the classes.
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
    """What the options of every system and of every run have.

    Attributes:
        signal: What goes in and comes out.
        student_channels: Names of those that the student sees, and all rows beside it,
            of the many that its teacher does; empty: all.
        student_options: Names of the options, or groups of them, that no stage before
            the student reads; `signal` and `student_channels` are known.
    """

    student_options: ClassVar[tuple[str, ...]] = ()

    signal: SignalConfig = SignalConfig()
    student_channels: tuple[str, ...] = ()


def signal_of(store: WindowStore) -> SignalConfig:
    """Reads what a system must know of the data."""
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
