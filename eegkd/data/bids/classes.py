"""From the labels of a BIDS data set to classes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from eegkd.data.corpora import UNLABELLED
from eegkd.data.folders.labels import BACKGROUND
from eegkd.data.folders.names import labels_alike
from eegkd.errors import InputError


class Classes(NamedTuple):
    """Classes of a data set.

    Attributes:
        names: Names in their order.
        background: The class of time outside all events, or None.
        of: Class of each label; `UNLABELLED` for those that are none.
    """

    names: tuple[str, ...]
    background: str | None
    of: Mapping[str, str]


def settle_classes(
    labels: Iterable[str],
    wanted: Sequence[str],
    *,
    too_short: Collection[str],
    alone: bool,
    subtypes: bool,
) -> Classes:
    """Chooses the classes among labels.

    Args:
        labels: All labels of the data set.
        wanted: Labels that are classes, in their order; () is all, in alphabetical
            order with the background first.
        too_short: Labels that are classes only where they are wanted.
        alone: One label alone stands against a background, as it has times.
        subtypes: A wanted "sz" takes "sz_foc" and the like, unless they are wanted too.

    Raises:
        InputError: If a wanted label does not occur, or labels differ by their spelling
            alone or mean the same.
    """
    found = sorted({*labels} - {"", UNLABELLED})
    if not wanted:
        _check_spelling(found)
    chosen = [*wanted] or [label for label in found if label not in too_short]
    names, inner = tuple(dict.fromkeys(chosen)), subtypes and bool(wanted)
    classes = frozenset(names)
    of = {label: class_of(label, classes, inner) for label in found}
    used = {*of.values(), BACKGROUND}
    lost = [name for name in names if name not in used]
    if lost:
        raise InputError(
            f"--data.classes {lost[0]}: no event or recording has this label. Choose "
            f"of {', '.join(found) or 'none: there are no labels'}."
        )
    background = None
    if BACKGROUND in names or (alone and len(names) == 1):
        background = BACKGROUND
        if BACKGROUND not in wanted:
            names = (BACKGROUND, *(name for name in names if name != BACKGROUND))
    return Classes(names, background, of | {UNLABELLED: UNLABELLED})


def class_of(label: str, chosen: Collection[str], subtypes: bool) -> str:
    """Returns the class of a label, or `UNLABELLED`."""
    name = label
    while name not in chosen:
        name = name.rpartition("_")[0]
        if not (name and subtypes):
            return UNLABELLED
    return name


def _check_spelling(labels: Sequence[str]) -> None:
    groups = labels_alike(labels)
    if groups:
        raise InputError(
            f"The labels {' and '.join(map(repr, groups[0]))} mean the same, or differ "
            f"by their spelling alone ({len(groups)} such). Write one name for them "
            "into the tables, or list the labels that are classes with --data.classes."
        )
