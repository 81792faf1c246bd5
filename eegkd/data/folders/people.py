"""Whose recording each file of a folder is, and doubts that a user has to settle."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eegkd.data.folders.labels import LABELS_FILE, Table
from eegkd.data.folders.names import alike, person_key, spelling
from eegkd.data.recordings.reading import bids_word
from eegkd.errors import InputError, quoted

_NO_PERSON: Mapping[str, re.Pattern[str]] = {
    "a time": re.compile(
        r"(day|night|week|month|year|visit|session|sess|ses|run|block|baseline|"
        r"followup|pre|post|(mon|tues|wednes|thurs|fri|satur|sun)day)(\d*|[a-z])|"
        r"(19|20)\d\d([01]\d[0-3]\d|\0[01]?\d(\0[0-3]?\d)?)|"
        r"[0-3]?\d\0[01]?\d\0(19|20)\d\d"
    ),
    "a place": re.compile(r"(site|center|centre|hospital|clinic|lab|ward)(\d*|[a-z])"),
    "a class": re.compile(
        r"healthy|ill|sick|patients?|controls?|cases|normal|abnormal|seizures?|"
        r"nonseizures?|noseizures?|ictal|interictal|preictal|background|epilep(sy|tic)|"
        r"hc|mdd|rest(ing)?|task|eyes(open|closed)|eo|ec|males?|females?|men|women|"
        r"adults|children|positive|negative|left|right|wake|awake|asleep|sleep|rem|"
        r"(group|class|condition)(\d*|[a-z])"
    ),
    "a part of a split": re.compile(
        r"train(ing)?|val(id)?(ation)?|dev|test(ing)?|eval(uation)?|holdout"
    ),
    "a kind of file": re.compile(
        r"[ebg]df|fif|set|vhdr|brainvision|eeglab|cnt|mff|wfdb|eeg|ieeg|ecg|psg|data|"
        r"dataset|raw|signals?|files|recordings|exports?|(pre)?processed|clean(ed)?|"
        r"filtered|originals?|converted"
    ),
}
"""What the spelling of a sub-folder reads as, where it is hardly a person's."""
_PERSON = re.compile(r"(sub|subj|subject|pat|patient|participant|proband)[\s_-]?\d+")
# One letter is a person's only where no number of it occurs in two folders.
_INITIAL = re.compile(r"(p|s|pt|vp|id)[\s_-]?\d+(?!\d)")
HOW = (
    "Say what they are: --data.subject_from folder (they are the persons), file (each "
    "file is a person), prefix (a file's name up to its first _ or - is) or none "
    f"(nobody is known), or name the subjects in {LABELS_FILE}."
)


def name_people(
    root: Path, files: Sequence[Path], table: Table | None, how: str | None
) -> tuple[dict[Path, str], tuple[str, ...]]:
    """Names the person of each recording.

    It is the subject of labels.csv, else the BIDS word sub-XX of the path, else what
    `how` says: "folder", the first sub-folder; "file", the file's name; "prefix", that
    name up to its first _ or -; "none", nobody. None is "folder", unless one sub-folder
    holds all of several files: then nobody is.

    Args:
        root: The folder.
        files: Its recordings.
        table: Rows of labels.csv, if there is one.
        how: The user's choice, `DataConfig.subject_from`.

    Returns:
        Recording -> person, "" where nobody is named; and what to tell the user.

    Raises:
        InputError: If a recording has two subjects, two persons differ by spelling
            alone, some recordings of one sub-folder have a name and others none, or
            the sub-folders look like no persons and the user has not chosen.
    """
    by_table = {
        file: _subject(root, file, (table or {}).get(file, ())) for file in files
    }
    inside = {file: file.relative_to(root) for file in files}
    by_word = {file: bids_word(inside[file], "sub") for file in files}
    open_files = [f for f in files if not by_table[f] and not by_word[f]]
    by_place = {f: _place(inside[f], how) for f in files}
    tops = {inside[f].parts[0] for f in files}
    notes: list[str] = []
    if how is None and len(files) > 1 and len(tops) == 1:
        by_place = dict.fromkeys(files, "")
        if open_files:
            notes.append(
                f"All recordings lie in the one sub-folder {tops.pop()}, which tells "
                f"nobody apart, so it names nobody. {HOW}"
            )
    elif how is None:
        labels = {row.label for rows in (table or {}).values() for row in rows}
        folders = {f: by_place[f] for f in open_files if by_place[f]}
        _check_folders(root, folders, {spelling(label) for label in labels})
    _check_half_named(root, files, by_table, by_word, by_place)
    people = {f: by_table[f] or by_word[f] or by_place[f] for f in files}
    groups = alike(filter(None, people.values()), person_key)
    if groups:
        raise InputError(
            f"{root}: the subjects {quoted(groups[0])} differ by their spelling alone "
            f"({len(groups)} such). If they are one person, spell the name alike "
            f"everywhere, in {LABELS_FILE} or as folders; if not, give one another "
            "name."
        )
    unnamed = [f for f in files if not people[f]]
    if unnamed and len(unnamed) < len(files):
        notes.append(
            f"{len(unnamed)} of {len(files)} recordings are of nobody named (first: "
            f"{inside[unnamed[0]].as_posix()}); each counts as a person of its own. "
            f"Name them in {LABELS_FILE} if they are of the others."
        )
    return people, tuple(notes)


def _subject(root: Path, file: Path, rows: Iterable[Any]) -> str:
    named = sorted({row.subject for row in rows if row.subject})
    if len(named) > 1:
        raise InputError(
            f"{root / LABELS_FILE}: {file.relative_to(root).as_posix()} is of subject "
            f"{named[0]} in one row and of {named[1]} in another. A recording has one "
            "subject."
        )
    return named[0] if named else ""


def _place(inside: Path, how: str | None) -> str:
    stem = re.sub(r"\.[^.]+(\.gz)?$", "", inside.name)
    if how == "file":
        return stem
    if how == "prefix":
        return re.split(r"[_\-]", stem)[0] or stem
    if how == "none" or len(inside.parts) == 1:
        return ""
    return inside.parts[0]


def _check_folders(
    root: Path, folders: Mapping[Path, str], labels: Collection[str]
) -> None:
    """Refuses to take sub-folders for persons that look like something else.

    They do where one is called so (`_NO_PERSON`) or like a label, and where the files
    in one begin with the names of two persons ("sub1", "patient 2"; or "p1", "s2", if
    no such number is in two folders, as if it counted a person's recordings).
    """
    names = dict.fromkeys(folders.values())
    for name in names:
        key = spelling(name)
        for what, pattern in _NO_PERSON.items():
            is_label = what == "a class" and key in labels
            if is_label or pattern.fullmatch(key):
                raise InputError(
                    f"{root}: its sub-folders ({quoted(names)}) would be the persons, "
                    f"and {name!r} reads as {what}. {HOW}"
                )
    for pattern, anywhere in ((_PERSON, True), (_INITIAL, False)):
        found: dict[str, set[str]] = {}
        for file, name in folders.items():
            match = pattern.match(file.name.lower())
            if match:
                found.setdefault(name, set()).add(person_key(match[0]))
        several = [name for name, people in found.items() if len(people) > 1]
        apart = len(found) > 1 and (
            sum(map(len, found.values())) == len(set().union(*found.values()))
        )
        if several and (anywhere or apart):
            raise InputError(
                f"{root}: its sub-folders ({quoted(names)}) would be the persons, and "
                f"the files in {several[0]!r} are named after several. {HOW}"
            )


def _check_half_named(
    root: Path,
    files: Sequence[Path],
    by_table: Mapping[Path, str],
    by_word: Mapping[Path, str],
    by_place: Mapping[Path, str],
) -> None:
    """Refuses a person who is named in labels.csv for some recordings alone."""
    named: dict[str, set[str]] = {}
    for file in files:
        named.setdefault(by_word[file] or by_place[file], set()).add(by_table[file])
    for file in files:
        place = by_word[file] or by_place[file]
        others = named[place] - {""}
        if place and not by_table[file] and others - {place}:
            raise InputError(
                f"{root / LABELS_FILE} names {quoted(sorted(others))} as the subject "
                f"of recordings of {place!r}, and nobody for {file.relative_to(root)}: "
                "is it the same person? Name the subject in a row of every recording."
            )
