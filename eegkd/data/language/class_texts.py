"""Texts that stand for a class: what the signal looks like, never what it is called.

A template of a class is a deterministic function of the label. Training on templates is
therefore supervised classification with class vectors initialised by language; the
control `text.source=random_class_vectors` measures how much the language adds.

References:
    Wang et al., DistilCLIP-EEG, IEEE JBHI 2025: templates without label words. The
    wording is ours; the paper's is not public.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32

from eegkd.errors import InputError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Morphology and context of every class of the corpora here. No class name, no
# abbreviation of one: a test looks for them.
MORPHOLOGY: Mapping[str, tuple[str, ...]] = {
    "background": (
        "irregular mixed frequency activity without evolution",
        "low voltage waves of changing frequency over both hemispheres",
        "a posterior rhythm near ten hertz with scattered slower waves",
        "symmetric ongoing activity that keeps its amplitude",
        "no pattern that builds up, spreads or repeats",
    ),
    "seizure": (
        "rhythmic discharges that build up in amplitude and slow in frequency",
        "a sudden sustained run of sharp waves that evolves and spreads",
        "repetitive high voltage spikes with a clear start and end",
        "rhythmic theta that grows and recruits neighbouring electrodes",
        "an evolving pattern of sharp waves followed by flattening",
    ),
    "focal": (
        "rhythmic activity confined to a few neighbouring electrodes",
        "a sharp theta rhythm with a harmonic over one region of one side",
        "repetitive sharp waves at a single site, the other side spared",
        "a sustained local run of pointed waves that evolves in frequency",
        "regional rhythmic discharges with a phase reversal at one electrode",
    ),
    "generalized": (
        "three hertz waves at the same time over the whole scalp",
        "bilateral synchronous slow waves, largest in front",
        "widespread symmetric rhythmic discharges on every electrode",
        "high voltage slow waves that begin everywhere at once",
        "diffuse regular waves at three hertz with a frontal maximum",
    ),
    "rest": (
        "a steady posterior alpha rhythm and little frontal activity",
        "relaxed wakefulness with closed eyes and smooth occipital waves",
        "large regular ten hertz waves over the back of the head",
        "calm ongoing activity, alpha dominant, slow drift only",
        "quiet wakefulness without frontal theta",
    ),
    "task": (
        "frontal midline theta with a weaker posterior alpha rhythm",
        "attenuated occipital waves and more fast activity in front",
        "mental effort: alpha suppressed, theta raised at the midline",
        "desynchronised posterior activity with faster low voltage waves",
        "concentrated wakefulness with frontal slow rhythms",
    ),
    "Z": (
        "healthy volunteer, eyes open: low voltage fast mixed activity",
        "surface electrodes, alert subject looking around, alpha blocked",
        "desynchronised scalp activity with blinks and fast rhythms",
        "small irregular scalp waves in an attentive volunteer",
        "surface activity without a dominant posterior rhythm",
    ),
    "O": (
        "healthy volunteer, eyes closed: a strong posterior alpha rhythm",
        "surface electrodes, relaxed subject, waxing and waning ten hertz waves",
        "smooth sinusoidal scalp waves of a drowsy volunteer",
        "scalp activity dominated by regular alpha spindles",
        "synchronised occipital surface rhythm in a relaxed volunteer",
    ),
    "N": (
        "depth electrodes opposite to the lesion, irregular slow activity",
        "intracranial contacts in the contralateral hippocampal formation, calm",
        "implanted electrode in tissue thought healthy, mixed slow waves",
        "intracranial recording between attacks, few sharp transients",
        "depth contacts with broad slow waves and no spikes",
    ),
    "F": (
        "depth electrodes inside the lesion, isolated spikes between attacks",
        "intracranial contacts in the epileptogenic zone, scattered sharp waves",
        "implanted electrode in diseased tissue, slow waves with single spikes",
        "intracranial recording between attacks with frequent sharp transients",
        "depth contacts with irregular slowing and interposed spikes",
    ),
    "S": (
        "depth electrodes with continuous high voltage rhythmic spiking",
        "intracranial contacts during an attack, large repetitive sharp waves",
        "implanted electrode with sustained hypersynchronous discharges",
        "very high amplitude rhythmic intracranial waves that evolve",
        "a dense train of spikes many times the usual voltage",
    ),
}

# The hand-written context of `prompt.mode=handcrafted`.
CONTEXT = (
    "A page of EEG read by a neurophysiologist shows {}.",
    "Several seconds of EEG, band passed and artefact free: {}.",
    "The trace, described without its diagnosis: {}.",
    "What an expert would point at in this stretch of EEG: {}.",
    "Morphology and distribution in one sentence: {}.",
)


def class_texts(
    classes: Sequence[str], *, handcrafted: bool = False
) -> tuple[tuple[str, ...], ...]:
    """Returns the templates of every class, in the order of `classes`.

    Args:
        classes: Class names.
        handcrafted: Put each description into a hand-written context.

    Raises:
        InputError: If a class has no templates.
    """
    missing = [name for name in classes if name not in MORPHOLOGY]
    if missing:
        raise InputError(
            f"No text templates for the classes {missing}: give your own with "
            "--text.source file --text.file TEXTS.csv (columns label,text), or train "
            "without text by --text.source none."
        )
    texts = tuple(MORPHOLOGY[name] for name in classes)
    if not handcrafted:
        return texts
    return tuple(
        tuple(CONTEXT[i % len(CONTEXT)].format(text) for i, text in enumerate(group))
        for group in texts
    )


def read_texts(path: Path, classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Reads free texts, several per class, from a CSV file of columns `label,text`.

    Raises:
        InputError: If the file, a column, or the texts of a class are missing.
    """
    if not path.is_file():
        raise InputError(f"--text.file {path}: no such file.")
    try:
        # Spreadsheets begin a file with a mark of its encoding.
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            if not {"label", "text"} <= set(reader.fieldnames or ()):
                raise InputError(f"{path}: needs the columns label,text.")
            cells = [(row["label"] or "", row["text"] or "") for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); save as UTF-8.") from None
    rows = [(label.strip(), text.strip()) for label, text in cells if label or text]
    unknown = sorted({label for label, _ in rows} - set(classes))
    if unknown:
        raise InputError(f"{path}: unknown labels {unknown}; classes: {list(classes)}.")
    groups = tuple(
        tuple(text for label, text in rows if label == name and text)
        for name in classes
    )
    empty = [name for name, group in zip(classes, groups, strict=True) if not group]
    if empty:
        raise InputError(f"{path}: no text for the classes {empty}.")
    return groups


def label_words(texts: Sequence[Sequence[str]], classes: Sequence[str]) -> list[str]:
    """Lists the class names that occur as a word in some text: label leakage."""
    joined = " ".join(text for group in texts for text in group)
    return [
        name
        for name in classes
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", joined, _flags(name))
    ]


def _flags(name: str) -> re.RegexFlag:
    """Matches one-letter names with their case: "a" is also an article."""
    return re.NOFLAG if len(name) == 1 else re.IGNORECASE


def build_vocabulary(texts: Sequence[Sequence[str]]) -> dict[str, int]:
    """Makes a WordPiece vocabulary of the special tokens and the words of `texts`."""
    words = {
        word
        for group in texts
        for text in group
        for word in re.findall(r"\w+|[^\w\s]", text.lower())
    }
    return {token: i for i, token in enumerate((*SPECIAL_TOKENS, *sorted(words)))}


def tokenize(
    texts: Sequence[Sequence[str]],
    vocabulary: Mapping[str, int],
    *,
    max_length: int,
    lowercase: bool = True,
) -> tuple[Int32[np.ndarray, "k m l"], Bool[np.ndarray, "k m l"], Int32[np.ndarray, " k"]]:  # fmt: skip # noqa: E501
    """Encodes the texts of every class as `[CLS] words [SEP]`, padded.

    Returns:
        Token ids and their mask, classes by texts by tokens, and the number of texts
        of each class; a class with fewer texts than the largest repeats its own.
    """
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(vocab=dict(vocabulary), lowercase=lowercase)
    tokenizer.enable_truncation(max_length)
    encoded = [[tokenizer.encode(text).ids for text in group] for group in texts]
    width = max(len(ids) for group in encoded for ids in group)
    most = max(len(group) for group in encoded)
    ids = np.full((len(texts), most, width), vocabulary["[PAD]"], np.int32)
    mask = np.zeros(ids.shape, bool)
    for k, group in enumerate(encoded):
        for m in range(most):
            tokens = group[m % len(group)]
            ids[k, m, : len(tokens)] = tokens
            mask[k, m, : len(tokens)] = True
    return ids, mask, np.array([len(group) for group in texts], np.int32)
