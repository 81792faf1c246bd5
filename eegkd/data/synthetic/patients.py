"""Patients of a synthetic world, and those whose labels the student may use."""

import dataclasses
import zlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from eegkd.data.recordings.recording import Event, Recording


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patients:
    """Numbers of patients, and their fixed split.

    Attributes:
        name: Name of the world.
        num_train: Training patients; the teacher learns from all of them.
        num_labelled: Training patients whose labels the student may use.
        num_val: Validation patients.
        num_test: Test patients.
        num_windows: Windows per patient.
    """

    name: str
    num_train: int = 40
    num_labelled: int = 4
    num_val: int = 6
    num_test: int = 20
    num_windows: int = 60

    @property
    def subjects(self) -> tuple[str, ...]:
        """Patient names in the order train, val, test."""
        total = self.num_train + self.num_val + self.num_test
        width = max(2, len(str(total - 1)))
        return tuple(f"{i:0{width}d}" for i in range(total))

    @property
    def split(self) -> dict[str, tuple[str, ...]]:
        """The fixed split by patient."""
        a, b = self.num_train, self.num_train + self.num_val
        names = self.subjects
        return {"train": names[:a], "val": names[a:b], "test": names[b:]}

    @property
    def student_subjects(self) -> tuple[str, ...]:
        """The training patients whose labels the student may use."""
        return self.subjects[: self.num_labelled]

    def rng(self, subject: str, seed: int) -> np.random.Generator:
        """Returns a patient's generator, by the world, the patient and the seed."""
        return np.random.default_rng(
            [seed, zlib.crc32(self.name.encode()), int(subject)]
        )

    def recording(
        self,
        subject: str,
        seed: int,
        signal: Float[np.ndarray, "c t"],
        channels: tuple[str, ...],
        rate: float,
        events: Iterable[Event],
    ) -> Recording:
        """Makes a patient's recording of EEG in uV; its `source` names its origin."""
        return Recording(
            signal=signal,
            channels=channels,
            kinds=("eeg",) * len(channels),
            units=("uV",) * len(channels),
            rate=rate,
            events=tuple(events),
            subject=subject,
            source=f"synthetic:{self.name}:{seed}:{subject}",
        )
