"""Synthetic recordings with a known Bayes posterior: the data inside the package."""

from collections.abc import Mapping
from types import ModuleType

from eegkd.data.recordings.recording import Recording
from eegkd.data.synthetic import layered, seizure
from eegkd.data.synthetic.patients import Patients

__all__ = ["GENERATORS", "WORLDS", "Patients", "bayes_accuracy", "make_recording"]

GENERATORS: Mapping[str, ModuleType] = {
    name: module for module in (seizure, layered) for name in module.WORLDS
}
"""The module that draws each world."""

WORLDS: Mapping[str, Patients] = {**seizure.WORLDS, **layered.WORLDS}
"""Worlds by the name that `--data.world` takes."""


def make_recording(world: str, subject: str, *, seed: int = 0) -> Recording:
    """Draws one patient of a world."""
    return GENERATORS[world].make_recording(WORLDS[world], subject, seed=seed)


def bayes_accuracy(
    world: str, subjects: tuple[str, ...], *, seed: int = 0
) -> tuple[float, float]:
    """Returns the accuracy of the Bayes classifier on some patients, and its error."""
    return GENERATORS[world].bayes_accuracy(WORLDS[world], subjects, seed=seed)
