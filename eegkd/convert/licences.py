"""Where published weights come from, and what their licences are."""

from typing import NamedTuple


class WeightsLicence(NamedTuple):
    """One published set of weights.

    Attributes:
        model: Its name in `load_pretrained`.
        source: Where it is published.
        licence: An SPDX name, or "none stated".
        note: What a user of the weights, or of a student of them, has to know.
    """

    model: str
    source: str
    licence: str
    note: str = ""


WEIGHTS_LICENCES = (
    WeightsLicence(
        "bert", "huggingface.co/google-bert/bert-base-uncased", "Apache-2.0"
    ),
    WeightsLicence(
        "cbramod",
        "huggingface.co/weighting666/CBraMod",
        "none stated",
        "Ask its authors before you pass on the weights or a student of them.",
    ),
    WeightsLicence(
        "cbramod",
        "huggingface.co/braindecode/cbramod-pretrained",
        "BSD-3-Clause",
        "A copy by braindecode's authors; the original weights state no licence.",
    ),
    WeightsLicence(
        "labram",
        "github.com/935963004/LaBraM",
        "MIT",
        "The licence of the repository that the weights lie in.",
    ),
    WeightsLicence(
        "labram",
        "huggingface.co/braindecode/labram-pretrained",
        "BSD-3-Clause",
        "A copy by braindecode's authors; the original repository's licence is MIT.",
    ),
    WeightsLicence(
        "eegnet",
        "github.com/vlawhern/arl-eegmodels",
        "CC0-1.0 or Apache-2.0",
        "By the authors' part of that repository.",
    ),
)


def licences_of(model: str) -> tuple[WeightsLicence, ...]:
    """Returns the published sets of weights of one model; empty for an unknown one."""
    return tuple(entry for entry in WEIGHTS_LICENCES if entry.model == model)
