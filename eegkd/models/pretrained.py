"""Published models by name, with their weights."""

from pathlib import Path
from typing import Any

from eegkd.errors import InputError, suggest
from eegkd.models.published import PUBLISHED
from eegkd.typing import PyTree


def load_pretrained(
    name: str, folder_or_file: str | Path, **options: Any
) -> tuple[Any, PyTree]:
    """Builds a published model with its weights.

    Args:
        name: "bert", "cbramod", "clip", "eegnet", "labram", "llama", "llava" (1.5 and
            1.6) or "qwen2".
        folder_or_file: Files of the model; for "cbramod" and "labram", a folder with
            `config.json` and `model.safetensors`, or a safetensors or PyTorch file with
            the names of the authors or of braindecode; for "eegnet", an HDF5 file of
            Keras; for the others, a folder of Hugging Face with `config.json` and
            `model.safetensors`, all but "bert" also in shards with their index.
        **options: Fields of the model's config that the files do not tell, or that are
            to differ: `channels` and `num_patches` of the windows at hand, `dropout`,
            `dtype`, `layers_out`; `reconstruct=False` leaves CBraMod's last layer out.
            For "clip", "llama", "llava" and "qwen2", which are read tensor by tensor:
            `dtype` is also that of the parameters (None: the file's, at least float32),
            and `shardings`, called with a parameter's path and shape, says how it is
            spread over devices. Fields of a part of CLIP or LLaVA are given as
            `language={"remat": "full"}`; `part="vision"` or "text" takes one tower of
            CLIP.

    Returns:
        The module, and variables for `module.apply`.

    Raises:
        InputError: If the name or an option is unknown, or an option does not fit the
            files; if the files are missing, broken or of another model; if LaBraM has
            no embedding for a channel or for so many patches; if CBraMod's channels
            are in another order than they were trained in.
    """
    if name not in PUBLISHED:
        raise InputError(
            f"Unknown model {name!r}; there is {', '.join(sorted(PUBLISHED))}."
            f"{suggest(name, PUBLISHED)}"
        )
    return PUBLISHED[name].load(folder_or_file, **options)
