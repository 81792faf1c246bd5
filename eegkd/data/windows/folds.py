"""Subject-wise folds: scikit-learn splitters, and validation nested inside them."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import (
    BaseCrossValidator,
    LeaveOneGroupOut,
    StratifiedGroupKFold,
    StratifiedKFold,
)

from eegkd.data.windows.store import WindowStore, check_trainable
from eegkd.data.windows.stratify import IterativeFolds
from eegkd.errors import InputError
from eegkd.host.sealed import hash_json

SPLITS = ("kfold", "loso", "fixed", "random-windows")
VALIDATION_SHARE = 5


class Fold(NamedTuple):
    """Rows of a store: all windows to train on, grid windows to judge on.

    Attributes:
        index: Number of the fold.
        train: Every row of the training subjects, in time order.
        val: Grid rows of the validation subjects, in time order.
        test: Grid rows of the test subjects, in time order.
    """

    index: int
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


class FixedSplit(BaseCrossValidator):
    """One published split: the test groups are named."""

    leaks = False

    def __init__(self, test_groups: Sequence[Any]) -> None:
        """Sets the values of `groups` that are tested on."""
        self.test_groups = tuple(test_groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Returns 1."""
        return 1

    def _iter_test_masks(
        self, X: Any = None, y: Any = None, groups: Any = None
    ) -> Iterator[np.ndarray]:
        if groups is None:
            raise ValueError("A fixed split needs `groups`.")
        yield np.isin(groups, self.test_groups)


class RandomWindows(StratifiedKFold):
    """Splits windows, not subjects, to show the leak."""

    leaks = True


def make_splitter(
    split: str,
    *,
    num_folds: int = 5,
    seed: int = 0,
    multilabel: bool = False,
    test_groups: Sequence[Any] = (),
) -> BaseCrossValidator:
    """Makes a scikit-learn splitter: `split(X, y, groups)`.

    Args:
        split: "kfold" (grouped, stratified by class), "loso", "fixed" or
            "random-windows", whose `leaks` attribute is True.
        num_folds: Number of folds of kfold and random-windows.
        seed: Seed of their shuffling.
        multilabel: Labels are rows of k: stratified label by label.
        test_groups: Groups that a fixed split tests on.
    """
    leaks = split == "random-windows"
    if multilabel and (split == "kfold" or leaks):
        return IterativeFolds(num_folds, random_state=seed, leaks=leaks)
    if split == "kfold":
        return StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    if split == "loso":
        return LeaveOneGroupOut()
    if split == "fixed":
        return FixedSplit(test_groups)
    if leaks:
        return RandomWindows(n_splits=num_folds, shuffle=True, random_state=seed)
    raise InputError(f"--split {split!r} is unknown; choose one of {', '.join(SPLITS)}")


def make_folds(
    store: WindowStore, split: str = "kfold", *, num_folds: int = 5, seed: int = 0
) -> tuple[Fold, ...]:
    """Splits a store into folds; validation groups are nested in the training ones.

    Groups are subjects; a recording whose subject is not named is a group of its own.

    Raises:
        InputError: If no window is labelled, there are too few groups, or a class is
            missing from a training fold.
    """
    check_trainable(store)
    groups = _groups(store)
    order = store.time_order
    multilabel = store.labels.ndim > 1
    fixed = _fixed_parts(store) if split == "fixed" else {}
    _check_number(store, split, num_folds, len(np.unique(groups)))
    splitter = make_splitter(
        split,
        num_folds=num_folds,
        seed=seed,
        multilabel=multilabel,
        test_groups=fixed.get("test", ()),
    )
    units = None if split == "random-windows" else groups
    y = store.labels
    folds = []
    pairs = _quiet_split(splitter, order, y[order], groups[order])
    for number, (outer, test) in enumerate(pairs):
        outer, test = order[outer], order[test]
        if fixed.get("val"):
            val = outer[np.isin(groups[outer], fixed["val"])]
            train = outer[np.isin(groups[outer], fixed["train"])]
        else:
            if fixed:
                outer = outer[np.isin(groups[outer], fixed["train"])]
            train, val = _nested(outer, y, units, seed=seed + number)
        on_grid = store.index["on_grid"]
        fold = Fold(number, train, val[on_grid[val]], test[on_grid[test]])
        _check_classes(store, fold, len(pairs))
        folds.append(fold)
    return tuple(folds)


def _check_number(
    store: WindowStore, split: str, num_folds: int, num_groups: int
) -> None:
    """Refuses more folds than groups, and fewer groups than a fold has parts."""
    kind = "subjects" if store.manifest["has_subjects"] else "recordings"
    need = max(num_folds if split == "kfold" else 3, 3)
    asked = f"--split {split} with {num_folds} folds"
    if split in ("kfold", "random-windows") and num_folds < 2:
        raise InputError(f"{asked}: raise --num_folds to at least 2.")
    if split not in ("kfold", "loso") or num_groups >= need:
        return
    cure = f"Lower --num_folds to at most {num_groups}."
    if num_groups < 3:
        need = 3
        cure = (
            "One each is trained on, validated on and tested on: add recordings, or "
            "use --split random-windows, whose results are stamped as leaking subjects."
        )
    raise InputError(
        f"{asked} needs at least {need} {kind}; {store.manifest['corpus']} has "
        f"{num_groups}. {cure}"
    )


def leaks_subjects(store: WindowStore, fold: Fold) -> bool:
    """Checks whether a subject is in more than one of train, validation and test.

    It goes by the subject of each window, whatever the folds went by.
    """
    groups = _groups(store)
    train, val, test = (set(groups[rows]) for rows in fold[1:])
    return bool(train & val or train & test or val & test)


def splits_json(store: WindowStore, folds: Sequence[Fold]) -> dict[str, Any]:
    """Describes folds for `splits.json`: groups, windows and classes of each part."""
    parts = [
        {"fold": fold.index}
        | {
            name: _describe(store, rows)
            for name, rows in zip(Fold._fields[1:], fold[1:], strict=True)
        }
        for fold in folds
    ]
    return {
        "corpus": store.manifest["corpus"],
        "store": store.fingerprint,
        "unit": "subject" if store.manifest["has_subjects"] else "recording",
        "leaks_subjects": any(leaks_subjects(store, fold) for fold in folds),
        "folds": parts,
        "hash": hash_json([[rows.tolist() for rows in fold[1:]] for fold in folds]),
    }


def _groups(store: WindowStore) -> np.ndarray:
    """Returns the subject of each window, or its recording where nobody is named."""
    subject = store.index["subject"]
    return np.where(subject == "", store.index["recording_id"], subject)


def _nested(
    outer: np.ndarray, y: np.ndarray, groups: np.ndarray | None, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits off about a fifth of the groups of `outer` (None: its rows) to validate.

    The first candidate with the most classes on both sides is taken.
    """
    inside = outer if groups is None else groups[outer]
    num = min(VALIDATION_SHARE, len(np.unique(inside)))
    if num < 2:
        raise InputError(
            "In a fold one subject is left to train on, so none can be kept for "
            "validation. Raise --num_folds, up to the number of subjects, or add some."
        )
    several = y.ndim > 1
    splitter: BaseCrossValidator = IterativeFolds(
        num, random_state=seed, leaks=groups is None
    )
    if not several:
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        splitter = kind(num, shuffle=True, random_state=seed)
    inner = _quiet_split(splitter, outer, y[outer], inside)

    def classes_on_both_sides(pair: tuple[np.ndarray, np.ndarray]) -> tuple[int, int]:
        if several:
            train, val = (np.flatnonzero((y[outer[r]] == 1).any(0)) for r in pair)
        else:
            train, val = (set(y[outer[rows]].tolist()) - {-1} for rows in pair)
        return len(train), len(val)

    train, val = max(inner, key=classes_on_both_sides)
    return outer[train], outer[val]


def _quiet_split(
    splitter: BaseCrossValidator, x: np.ndarray, y: np.ndarray, groups: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Splits without the warning about rare classes: `_check_classes` judges them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        try:
            if isinstance(splitter, StratifiedKFold):
                return list(splitter.split(x, y))
            return list(splitter.split(x, y, groups))
        except ValueError as error:
            raise InputError(
                f"{len(x)} windows are too few for this split ({error}). Prepare more "
                "recordings, or shorter windows (--data.window_s)."
            ) from error


def _fixed_parts(store: WindowStore) -> dict[str, list[str]]:
    split: Mapping[str, Any] = store.manifest.get("split") or {}
    if "error" in split:
        raise InputError(split["error"])
    if not split.get("train") or not split.get("test"):
        raise InputError(
            f"The {store.manifest['corpus']} store has no published split; "
            "use --split kfold."
        )
    taken: dict[str, str] = {}
    known = set(_groups(store).tolist())
    for part, names in split.items():
        for name in names:
            if taken.setdefault(name, part) != part:
                raise InputError(
                    f"{name!r} is in {part} and {taken[name]} of the split"
                )
            if name not in known:
                raise InputError(f"The split names {name!r}, which has no windows.")
    return {part: list(names) for part, names in split.items()}


def rare_classes(store: WindowStore, num_folds: int) -> dict[str, int]:
    """Returns the classes of fewer subjects than folds, and how many have each.

    Where a window has several labels; a test fold then lacks the class.
    """
    if store.labels.ndim == 1:
        return {}
    groups = _groups(store)
    counts = {
        name: len(np.unique(groups[store.labels[:, k] == 1]))
        for k, name in enumerate(store.classes)
    }
    return {name: count for name, count in counts.items() if count < num_folds}


def _check_classes(store: WindowStore, fold: Fold, num_folds: int) -> None:
    """Refuses a fold that lacks a class in training, or has no windows to judge."""
    for name, rows in zip(Fold._fields[1:], fold[1:], strict=True):
        if len(rows) == 0:
            raise InputError(
                f"Fold {fold.index} has no {name} windows. Lower --num_folds, or add "
                "recordings."
            )
    for who, labels in (("", store.labels), ("student ", store.student_labels)):
        counts = _class_counts(store, labels[fold.train])
        missing = [name for name, count in counts.items() if count == 0]
        if missing:
            rare = rare_classes(store, num_folds)
            few = ", ".join(f"{name} {count}" for name, count in rare.items())
            raise InputError(
                f"Class {missing[0]!r} has no {who}training window in fold "
                f"{fold.index}: {_why_missing(store, labels, missing[0])}"
                + (f" Subjects, where fewer than folds: {few}." if few else "")
            )


def _why_missing(store: WindowStore, labels: np.ndarray, name: str) -> str:
    k = store.classes.index(name)
    mine = labels == k if labels.ndim == 1 else labels[:, k] == 1
    num = len(np.unique(_groups(store)[mine]))
    leave_out = "leave the class out (label it unlabelled)"
    if num < 2:
        have = "one subject alone has" if num else "no window has"
        return f"{have} it. Add recordings of others who do, or {leave_out}."
    return (
        f"{num} subjects have it, and none is left to train on. Part them by more "
        f"folds, --split loso or another --seed, or {leave_out}."
    )


def _class_counts(store: WindowStore, labels: np.ndarray) -> dict[str, int]:
    if labels.ndim == 1:
        counts = np.bincount(labels[labels >= 0], minlength=store.num_classes)
    else:
        counts = (labels > 0).sum(axis=0)
    return dict(zip(store.classes, counts.tolist(), strict=True))


def _describe(store: WindowStore, rows: np.ndarray) -> dict[str, Any]:
    return {
        "groups": np.unique(_groups(store)[rows]).tolist(),
        "windows": len(rows),
        "classes": _class_counts(store, store.labels[rows]),
    }
