"""Folders of published text towers: where their files are, and how they read words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eegkd.errors import InputError
from eegkd.host.json_file import read_json

_DEPTH = 3
_NEEDED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class Words(NamedTuple):
    """How a tower's texts become numbers.

    Attributes:
        vocabulary: Token -> id, as WordPiece splits words.
        lowercase: True if texts are put into lower case, without accents.
    """

    vocabulary: Mapping[str, int]
    lowercase: bool = True


def find_tower(given: str | Path) -> Path:
    """Finds the folder of a tower's `config.json` and weights: this, or one inside it.

    A package that ships a tower keeps it in a folder of its own.

    Raises:
        InputError: If there is no tower, or several are inside.
    """
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise InputError(f"--text.bert {given}: no such folder.")
    if _is_tower(folder):
        return folder
    patterns = ("/".join(["*"] * depth) for depth in range(1, _DEPTH + 1))
    found = sorted(
        place for pattern in patterns for place in folder.glob(pattern)
        if place.is_dir() and _is_tower(place)
    )  # fmt: skip
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"--text.bert {given}: several towers are inside: "
            f"{', '.join(map(str, found))}. Name the folder of one."
        )
    raise InputError(
        f"--text.bert {given}: no text tower there or inside. Name a folder with "
        "config.json, model.safetensors, and vocab.txt or tokenizer.json."
    )


def read_words(folder: Path) -> Words:
    """Reads a tower's vocabulary, from `vocab.txt` or else from `tokenizer.json`.

    Whether it knows capital letters is told by `tokenizer_config.json`, else by
    `tokenizer.json`; without either it does not.

    Raises:
        InputError: If there is no vocabulary, or it is not WordPiece's.
    """
    lines, whole = folder / "vocab.txt", folder / "tokenizer.json"
    tokenizer = _read(whole) if whole.is_file() else {}
    if lines.is_file():
        try:
            text = lines.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{lines}: no UTF-8 ({error}).") from None
        # Not splitlines(): some tokens are what it takes for the end of a line.
        tokens = text.removesuffix("\n").split("\n")
        vocabulary = {token: i for i, token in enumerate(tokens)}
    elif tokenizer:
        vocabulary = _vocabulary(whole, tokenizer)
    else:
        raise InputError(
            f"{folder}: no vocab.txt or tokenizer.json beside the weights of BERT."
        )
    lacking = [token for token in _NEEDED if token not in vocabulary]
    if lacking:
        raise InputError(
            f"{folder}: its vocabulary has no {', '.join(lacking)}: is this a BERT?"
        )
    return Words(vocabulary, _is_lowercase(folder, tokenizer))


def published_pooling(folder: Path) -> Literal["cls", "mean"] | None:
    """Returns how sentences were pooled in the tower's training, where it says so.

    `1_Pooling/config.json` is a file of sentence-transformers.
    """
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return None
    said = _read(file)
    if said.get("pooling_mode_mean_tokens"):
        return "mean"
    return "cls" if said.get("pooling_mode_cls_token") else None


def _is_tower(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _is_lowercase(folder: Path, tokenizer: Mapping[str, Any]) -> bool:
    config = folder / "tokenizer_config.json"
    stated = _read(config).get("do_lower_case") if config.is_file() else None
    if stated is None:
        stated = (tokenizer.get("normalizer") or {}).get("lowercase", True)
    return bool(stated)


def _vocabulary(file: Path, tokenizer: Mapping[str, Any]) -> dict[str, int]:
    model = tokenizer.get("model") or {}
    if model.get("type") != "WordPiece" or not isinstance(model.get("vocab"), dict):
        raise InputError(
            f"{file}: its model is {model.get('type')}, not WordPiece: take a BERT."
        )
    return model["vocab"]


def _read(file: Path) -> dict[str, Any]:
    return read_json(
        file, dict, cure="Take the file from the model anew.", strict=False
    )
