"""Names that are one: spellings of a person or a label, and known synonyms.

Two names are spelled alike if they are equal once case, accents, spaces, hyphens,
underscores and full stops between words, and zeros before a number are left out: "Anna
B", "anna_b"; "P01", "p-1"; "sub-3", "3"; "1", "1.0". A sign before or behind a name
stays ("-1" is not "1"). Beat codes of PhysioNet mean something else in lower case.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable

SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("seizure", "seizures", "seiz", "sz", "ictal"),
    ("background", "bckg", "bkg", "nonseizure", "noseizure"),
    ("unlabelled", "unlabeled"),
    ("wake", "w", "awake", "sleepstagew", "stagew", "sleepstagewake"),
    ("n1", "s1", "nrem1", "sleepstage1", "sleepstagen1", "stage1", "stagen1"),
    ("n2", "s2", "nrem2", "sleepstage2", "sleepstagen2", "stage2", "stagen2"),
    ("n3", "s3", "nrem3", "sleepstage3", "sleepstagen3", "stage3", "stagen3"),
    ("s4", "nrem4", "sleepstage4", "stage4"),
    ("rem", "r", "sleepstager", "stager", "sleepstagerem"),
    ("artefact", "artifact", "artefacts", "artifacts"),
)
"""Labels that mean the same, by their spelling; only where two of them are in use."""

_BEATS = frozenset("AaEeFfJjNnRrSsTt")
_GAP = re.compile(r"(?<=\w)[\s._\-]+(?=\w)|_+")
_PERSON_WORD = re.compile(r"(?:sub|subj|subject)(?=\d)")


def spelling(name: str) -> str:
    """Returns what names that are spelled alike have in common."""
    text = re.sub(r"\s+", " ", unicodedata.normalize("NFKD", name).casefold()).strip()
    text = re.sub("[\u0300-\u036f]", "", text)  # Accents, but no vowels or voicing.
    text = re.sub(r"(?<![\d.])(\d+)\.0+$", r"\1", text)
    # Between two digits something has to stay: 1-10 is not 11-0.
    text = re.sub(r"(?<=\d)[\s._\-]+(?=\d)", "\0", text)
    text = re.sub(r"(?<!\d)0+(?=\d)", "", _GAP.sub("", text))
    return text or name


def person_key(name: str) -> str:
    """Returns the spelling of a person, without a leading "sub" of a number."""
    return _PERSON_WORD.sub("", spelling(name)) or name


def label_key(label: str) -> str:
    """Returns the spelling of a label, or of the first of its synonyms."""
    key = spelling(label)
    return next((group[0] for group in SYNONYMS if key in group), key)


def alike(names: Iterable[str], key: Callable[[str], str]) -> list[tuple[str, ...]]:
    """Returns groups of different names with one key, in their order."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(key(name), {})[name] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]


def labels_alike(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns groups of labels that are one; codes of beats differ by their case."""
    return [
        group
        for group in alike(labels, label_key)
        if not (set(group) <= _BEATS and len({x.casefold() for x in group}) == 1)
    ]
