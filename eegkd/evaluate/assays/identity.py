"""The subject's identity in a model's embedding."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eegkd.evaluate.evidence import Assay, Evidence, always
from eegkd.evaluate.report.parts import Html, note, number, section, table
from eegkd.evaluate.rows import SHOWN

MIN_WINDOWS = 4
PROBED = {"band power": "linear"} | {name: name for name in SHOWN}
"""Embedded input -> row that embeds it; band power is the baseline."""
NOTE = (
    "Balanced accuracy of a linear probe that names the test subject from the "
    "embedding, fitted on the first half of each recording and judged on the second; "
    "people the model never saw. Well above chance, the embedding holds who it is (or "
    "the day, or the electrodes' fit)."
)


class Identity(NamedTuple):
    """Accuracy of a linear probe for the subject.

    Attributes:
        accuracy: Balanced accuracy of the probe on the later half of each recording.
        chance: One over the number of subjects.
        n_subjects: Number of subjects.
    """

    accuracy: float
    chance: float
    n_subjects: int


def identity_probe(
    features: Float[np.ndarray, "n f"],
    subject: Shaped[np.ndarray, " n"],
    recording: Shaped[np.ndarray, " n"],
    start_s: Float[np.ndarray, " n"],
    *,
    seed: int = 0,
) -> Identity | None:
    """Fits a linear classifier of the subject on embeddings of people never trained on.

    The probe is fitted on the first half of each recording and judged on the second,
    so that neighbouring windows are not on both sides. It cannot tell a person from
    the day and the electrodes' fit. Subjects of fewer than four windows are left out.

    Returns:
        The score; None where fewer than two subjects have enough windows.

    References:
        arXiv 2606.06647: in frozen EEG foundation models the subject explains 13 to 89
        times the variance of a null.
    """
    train, test = _halves(subject, recording, start_s)
    names = np.unique(subject[train])
    if len(names) < 2:
        return None
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=500, random_state=seed)
    )
    model.fit(features[train], subject[train])
    right = model.predict(features[test]) == subject[test]
    recalls = [right[subject[test] == name].mean() for name in names]
    return Identity(float(np.mean(recalls)), 1 / len(names), len(names))


def remove_subject_axes(
    features: Float[np.ndarray, "n f"], subject: Shaped[np.ndarray, " n"]
) -> Float32[np.ndarray, "n f"]:
    """Projects out the directions along which subjects' means differ.

    With M the matrix of subject means minus their mean, the result is `x - x V V^T`
    with V an orthonormal basis of the rows of M: all subjects then have the same mean,
    so that no linear classifier fitted on these features tells them apart by it.
    """
    names = np.unique(subject)
    means = np.stack([features[subject == name].mean(axis=0) for name in names])
    centred = means.astype(np.float64) - means.mean(axis=0)
    _, size, basis = np.linalg.svd(centred, full_matrices=False)
    # Means that differ by no more than float32 rounds do not differ.
    basis = basis[size > 1e-5 * np.abs(features).max()]
    x = features.astype(np.float64)
    return (x - (x @ basis.T) @ basis).astype(np.float32)


def _halves(
    subject: Shaped[np.ndarray, " n"],
    recording: Shaped[np.ndarray, " n"],
    start_s: Float[np.ndarray, " n"],
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    train, test = np.zeros(len(subject), bool), np.zeros(len(subject), bool)
    for name in np.unique(recording):
        rows = np.flatnonzero(recording == name)
        rows = rows[np.argsort(start_s[rows], kind="stable")]
        train[rows[: len(rows) // 2]] = True
        test[rows[len(rows) // 2 :]] = True
    names, counts = np.unique(subject, return_counts=True)
    enough = np.isin(subject, names[counts >= MIN_WINDOWS])
    # A subject of single-window recordings would be in the second halves alone.
    enough &= np.isin(subject, subject[train])
    return train & enough, test & enough


def probe_identity(evidence: Evidence) -> dict[str, Identity]:
    """Probes embeddings of one fold's test subjects for their identity.

    Returns:
        Scores by embedded input; empty if the corpus has no subjects or too few windows
        of each.
    """
    if not evidence.manifest["has_subjects"]:
        return {}
    index, rows = evidence.store.index, evidence.fold.test
    where = [index[k][rows] for k in ("subject", "recording_id", "start_s")]
    features = {name: evidence.embed(row) for name, row in PROBED.items()}
    found = {
        name: identity_probe(x, *where, seed=evidence.seed)
        for name, x in features.items()
        if x is not None
    }
    return {name: value for name, value in found.items() if value is not None}


def _section(result: Mapping[str, Mapping[str, Any]], evidence: Evidence) -> Html:
    del evidence
    if not result:
        return ""
    head = ("embedding", "subject named", "chance", "subjects")
    body = [
        (name, number(one["accuracy"]), number(one["chance"]), str(one["n_subjects"]))
        for name, one in result.items()
    ]
    return section("Who it is", table(head, body), note(NOTE))


ASSAY = Assay(
    name="identity",
    applies=always,
    run=lambda evidence: {k: v._asdict() for k, v in probe_identity(evidence).items()},
    section=_section,
)
