"""Who has labels, and how often their windows are drawn."""

import dataclasses

import numpy as np

from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.pipeline.folds import FoldData


def limit_labels(store: WindowStore, fold: Fold, num_people: int) -> WindowStore:
    """Returns the store as a student sees it that may use the labels of so many people.

    Those that the corpus names come first, then the fold's other training subjects in
    the order of the store: the people of a smaller number are among those of a larger.

    Args:
        store: Windows.
        fold: A fold, whose training subjects have the labels.
        num_people: Their number; 0 leaves the store as it is.

    Raises:
        InputError: If the fold trains on fewer people, or these lack a class.
    """
    if not num_people:
        return store
    subject = store.index["subject"][fold.train]
    _, first = np.unique(subject, return_index=True)
    people = [str(name) for name in subject[np.sort(first)]]
    if num_people > len(people):
        raise InputError(
            f"--train.labelled_people {num_people}: fold {fold.index} trains on "
            f"{len(people)} people. Ask for at most {len(people)}."
        )
    stated = store.manifest.get("student_subjects")
    named = {str(name) for name in stated or ()}
    people.sort(key=lambda name: name not in named)  # Stable.
    manifest = {**store.manifest, "student_subjects": people[:num_people]}
    limited = dataclasses.replace(store, manifest=manifest)
    labels = limited.student_labels[fold.train]
    for number, name in enumerate(store.classes):
        of_class = labels == number if labels.ndim == 1 else labels[:, number] == 1
        if not of_class.any():
            raise InputError(
                f"--train.labelled_people {num_people}: of these people of fold "
                f"{fold.index} nobody has the class {name!r}. Ask for more of them."
            )
    return limited


def rows_by_label(data: FoldData) -> tuple[np.ndarray, np.ndarray]:
    """Returns the training rows whose labels a student may use, and the others."""
    labels = data.store.student_labels.reshape(len(data.store), -1)
    rows = data.fold.train
    known = (labels[rows] >= 0).any(axis=1)
    return rows[known], rows[~known]


def labelled_alone(data: FoldData) -> np.ndarray:
    """Returns as many training rows as there are, of which all have labels.

    A net that no teacher helps learns from labels alone: of a batch of 64 with the
    labels of 4 people in 40 it would read 6 windows, and stay at chance from one start
    in three. Where all rows have labels, or none has, these are the rows as they are.
    """
    known, _ = rows_by_label(data)
    return np.resize(known if len(known) else data.fold.train, len(data.fold.train))


def with_share(data: FoldData, share: float) -> np.ndarray:
    """Returns the training rows, those with labels so often that they have a share.

    A batch of 64 with the labels of 4 people in 120 holds two windows that say
    anything about a class: losses on labels are noise, with a teacher or without. Other
    rows are there once each, and the rows are as they are where that share is reached.
    """
    known, others = rows_by_label(data)
    num = round(share / (1 - share) * len(others))
    if not len(known) or num <= len(known):
        return data.fold.train
    return np.concatenate([others, np.resize(known, num)])
