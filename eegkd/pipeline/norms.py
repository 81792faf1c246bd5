"""norms.json of a fold: what its training recordings are like, kept for `predict`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eegkd.data.windows.recorded import Recorded, read_recorded
from eegkd.errors import InputError
from eegkd.evaluate.norms import Norms, make_norms, window_values
from eegkd.host.atomic import write_atomic
from eegkd.host.sealed import read_sealed, seal
from eegkd.host.shapes import fit
from eegkd.pipeline.folder import to_json
from eegkd.pipeline.folds import FoldData

NORMS = "norms.json"
VERSION = 1
MOST_WINDOWS = 200
"""Windows of a recording that are looked at, from all over it."""


def keep_norms(folder: Path, data: FoldData, columns: Sequence[int] = ()) -> None:
    """Writes norms.json of a fold, unless it is there already.

    Args:
        folder: Folder of the fold.
        data: Its windows.
        columns: Channels that the student sees; () is all, as the teacher does.

    Raises:
        InputError: If the store's `recorded.npz` was altered, or the folder cannot be
            written.
    """
    if (folder / NORMS).is_file():
        return
    manifest = data.store.manifest
    names, shape = list(manifest["recordings"]), data.store.signal.shape
    recorded = read_recorded(data.store.path, len(names), shape)
    every = tuple(range(shape[1]))
    wanted = dict.fromkeys((every, tuple(columns) or every))
    write_norms(folder, [_measure(data, recorded, kept) for kept in wanted])


def write_norms(folder: Path, norms: Sequence[Norms]) -> None:
    """Writes norms.json, sealed.

    Raises:
        InputError: If the folder cannot be written.
    """
    record = {"version": VERSION, "norms": to_json(norms)}
    write_atomic(folder / NORMS, seal(record))


def read_norms(folder: Path, channels: Sequence[str]) -> Norms | None:
    """Reads the norms of some channels from a fold's folder; None if nobody kept any.

    Raises:
        InputError: If the file was altered.
    """
    if not (folder / NORMS).is_file():
        return None
    cure = f"Delete that file, and let `eegkd evaluate {folder.parent}` write it again."
    record = read_sealed(folder / NORMS, "Norms", version=VERSION, cure=cure)
    try:
        found = fit(list[Norms], record.get("norms"))
    except ValueError as error:
        raise InputError(f"Norms {folder}: {error}. {cure}") from error
    return next((x for x in found if x.channels == tuple(channels)), None)


def some_rows(rows: np.ndarray) -> np.ndarray:
    """Returns at most `MOST_WINDOWS` of a recording's rows, from all over it."""
    kept = np.linspace(0, len(rows) - 1, min(len(rows), MOST_WINDOWS))
    return rows[np.round(kept).astype(int)]


def passband_of(preprocessing: Mapping[str, Any]) -> tuple[float, float]:
    """Returns the band that a store's windows were filtered to; 0 is no edge."""
    low, high = preprocessing.get("band") or (0.0, 0.0)
    return float(low), float(high)


def _measure(
    data: FoldData, recorded: Recorded | None, columns: tuple[int, ...]
) -> Norms:
    """Describes the training recordings of a fold, one after another."""
    store, rows, kept = data.store, np.sort(data.fold.train), list(columns)
    manifest, ids = store.manifest, store.index["recording_id"][rows]
    names, first, codes = np.unique(ids, return_index=True, return_inverse=True)
    order, counts = np.argsort(codes, kind="stable"), np.bincount(codes)
    band = passband_of(manifest["preprocessing"])
    parts, lengths = [], []
    for group in np.split(rows[order], np.cumsum(counts)[:-1]):
        mine = some_rows(group)
        signal = np.asarray(store.signal[mine])[:, kept]
        scale = _scale(manifest, recorded, mine, kept)
        parts.append(window_values(signal, manifest["rate"], band, scale))
        lengths.append(len(mine))
    _, person = np.unique(store.index["subject"][rows[first]], return_inverse=True)
    places = {name: i for i, name in enumerate(manifest["recordings"])}
    mine = [places[name] for name in names.tolist() if name in places]
    rates, units = np.zeros(0), np.zeros(0)
    if recorded is not None:
        rates, units = recorded.rate, recorded.units
    return make_norms(
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
        np.repeat(np.arange(len(names)), lengths),
        person,
        _seconds(manifest, names.tolist(), counts),
        channels=tuple(manifest["channels"][i] for i in kept),
        # Those of the first recording: `prepare` asks all for the same.
        units=tuple(units[mine[0]][kept].tolist()) if len(units) else (),
        rates=tuple(np.unique(rates[mine]).tolist()) if len(rates) else (),
        passband=band,
    )


def _seconds(
    manifest: Mapping[str, Any], names: Sequence[str], counts: np.ndarray
) -> np.ndarray:
    """Returns the length of recordings; that of their windows where nobody says."""
    records, window_s = manifest["recordings"], manifest["window_s"]
    lengths = (float(count * window_s) for count in counts)
    pairs = zip(names, lengths, strict=True)
    known = [records.get(n, {}).get("duration_s", t) for n, t in pairs]
    return np.array(known, np.float64)


def _scale(
    manifest: Mapping[str, Any],
    recorded: Recorded | None,
    rows: np.ndarray,
    columns: list[int],
) -> np.ndarray | None:
    """Returns what some windows were divided by; None where nobody knows."""
    if recorded is not None and len(recorded.scale):
        return recorded.scale[rows][:, columns].astype(np.float64)
    # Fitted at load, or never: the store has the signal as it is.
    if manifest["preprocessing"].get("zscore") in ("none", "train_set"):
        return np.ones((len(rows), len(columns)))
    return None
