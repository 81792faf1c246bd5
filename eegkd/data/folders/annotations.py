"""Annotations as labels: files of annotations alone, and what labels no window."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from eegkd.data.corpora import UNLABELLED
from eegkd.data.folders.labels import Row

_LABEL_WORD = re.compile(
    r"label|annot|event|hypno|stag(e|ing)|scor|seizure|marker", re.I
)
_TABLES = (".csv", ".tsv", ".txt", ".xls", ".xlsx", ".ods", ".xml", ".mat", ".ann")
_LABELS = (".tse", ".tse_bi", ".lbl", ".lbl_bi", ".csv_bi", ".seizures", ".evt", ".hyp")
_NO_STAGE = re.compile(r"(sleep )?stage ?\?|\?|unscored|unknown", re.IGNORECASE)
# Onset, duration and texts of an annotation, as the EDF+ standard writes them.
_TAL = re.compile(rb"([+-]\d+\.?\d*)(?:\x15(\d+\.?\d*))?((?:\x14[^\x14\0]*)+)\x14\0")
Stretch = tuple[float, float, str]
"""Onset, duration, label."""


def read_stages(path: Path) -> tuple[Row, ...]:
    """Reads the lasting annotations of an EDF+ or BDF+ file that holds nothing else.

    A stage that nobody knows ("Sleep stage ?") is unlabelled. Onsets count from the
    time in the header, which is the recording's too.
    """
    data = path.read_bytes()
    start = data[184:192].strip()
    rows = []
    for onset, duration, texts in _TAL.findall(data[int(start) :]):
        for text in filter(None, texts.split(b"\x14")):
            label = _decoded(text)
            known = UNLABELLED if _NO_STAGE.fullmatch(label) else label
            if duration and float(duration) > 0:
                rows.append(Row(0, "", known, float(onset), float(duration)))
    return tuple(rows)


def _decoded(text: bytes) -> str:
    """Returns an annotation's text: UTF-8 by the standard, else as older files have."""
    try:
        return text.decode().strip()
    except UnicodeDecodeError:
        return text.decode("latin-1").strip()


def too_short(
    files: Iterable[Sequence[Stretch]], *, window_s: float, least_s: float
) -> dict[str, float]:
    """Finds labels that no window can get, since they cover too little of any.

    Args:
        files: Labelled stretches of each recording.
        window_s: Length of a window.
        least_s: Time of a label that a window needs.

    Returns:
        Label -> its longest stretch.
    """
    longest: dict[str, float] = {}
    enough: set[str] = set()
    for stretches in files:
        spans: dict[str, list[tuple[float, float]]] = {}
        for onset, duration, label in stretches:
            longest[label] = max(longest.get(label, 0.0), duration)
            spans.setdefault(label, []).append((onset, onset + duration))
        for label, own in spans.items():
            if (
                label not in enough
                and _most_covered(np.array(own), window_s) >= least_s
            ):
                enough.add(label)
    return {label: s for label, s in longest.items() if label not in enough}


def _most_covered(spans: np.ndarray, window_s: float) -> float:
    """Computes how much of a window spans cover at most, wherever it lies."""
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    stop = np.maximum.accumulate(spans[:, 1])
    is_new = np.concatenate([[True], spans[1:, 0] > stop[:-1]])
    first = np.flatnonzero(is_new)
    begin, end = spans[first, 0], stop[np.append(first[1:], len(spans)) - 1]
    done = np.cumsum(end - begin)
    edges = np.column_stack([begin, end]).ravel()
    before = np.column_stack([done - (end - begin), done]).ravel()
    # The most is covered where a window begins with a span, or ends with one.
    at = np.concatenate([begin, end - window_s])
    covered = np.interp(at + window_s, edges, before) - np.interp(at, edges, before)
    return float(covered.max())


def label_files(files: Iterable[Path]) -> tuple[Path, ...]:
    """Finds files that look like labels: tables whose name says so, or their suffix."""
    return tuple(
        path
        for path in files
        if path.suffix.lower() in _LABELS
        or (path.suffix.lower() in _TABLES and _LABEL_WORD.search(path.stem))
    )
