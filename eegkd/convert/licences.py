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
    WeightsLicence(
        "clip",
        "huggingface.co/openai/clip-vit-large-patch14-336",
        "MIT",
        "The licence of github.com/openai/CLIP; the weights' card states none, and "
        "calls deployed uses out of scope.",
    ),
    WeightsLicence(
        "llama",
        "huggingface.co/lmsys/vicuna-7b-v1.5, -13b-v1.5",
        "Llama 2 Community License",
        "Made from Llama 2: its licence and acceptable use policy bind; read what it "
        "says of other models that are improved with its outputs before you distil.",
    ),
    WeightsLicence(
        "llava",
        "huggingface.co/llava-hf/llava-1.5-7b-hf, -13b-hf",
        "Llama 2 Community License",
        "Its decoder is a Vicuna; its instructions were made with GPT-4, whose "
        "provider's terms may bind too.",
    ),
    WeightsLicence(
        "llava",
        "huggingface.co/llava-hf/llava-v1.6-vicuna-7b-hf",
        "Llama 2 Community License",
        "Its decoder is a Vicuna.",
    ),
    WeightsLicence(
        "qwen2",
        "huggingface.co/Qwen/Qwen2-0.5B, Qwen2-1.5B",
        "Apache-2.0",
        "The largest Qwen2 has another licence.",
    ),
)


def licences_of(model: str) -> tuple[WeightsLicence, ...]:
    """Returns the published sets of weights of one model; empty for an unknown one."""
    return tuple(entry for entry in WEIGHTS_LICENCES if entry.model == model)
