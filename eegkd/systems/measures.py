"""Expensive features of each window that a system reads, computed once per store."""

import dataclasses
import io
from pathlib import Path

import numpy as np

from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.host.arrays import open_npz
from eegkd.host.atomic import write_atomic
from eegkd.host.sealed import hash_arrays
from eegkd.systems import SignalConfig, System


def with_measures(
    system: System, store: WindowStore, signal: SignalConfig, file: Path | None = None
) -> WindowStore:
    """Returns the store with the results of `system.measure` for each window.

    Batches then hold `measures f32[b, m]`.

    Args:
        system: The system; without a `measure`, the store is returned unchanged.
        store: Windows.
        signal: Description of the signals.
        file: File that keeps the numbers, read again for the same store.

    Raises:
        InputError: If the numbers are not finite, or not one row per window.
    """
    if system.measure is None:
        return store
    found = _read(file, store.fingerprint) if file is not None else None
    if found is None:
        found = _measure(system, store, signal)
        if file is not None:
            buffer = io.BytesIO()
            sha256 = hash_arrays(found)
            np.savez(buffer, of=store.fingerprint, measures=found, sha256=sha256)
            write_atomic(file, buffer.getvalue())
    return dataclasses.replace(store, measures=found)


def _measure(system: System, store: WindowStore, signal: SignalConfig) -> np.ndarray:
    """Measures the recordings one after another, each in time order."""
    parts, rows = [], []
    for recording in dict.fromkeys(store.index["recording_id"].tolist()):
        mine = store.recording_rows(recording)
        found = np.asarray(system.measure(store.read(mine)["signal"], signal))  # type: ignore[misc]
        if found.ndim != 2 or len(found) != len(mine) or not np.isfinite(found).all():
            raise InputError(
                f"The measure of system {system.name} returns {list(found.shape)} for "
                f"the {len(mine)} windows of {recording}: it has to be one row of "
                "finite numbers per window."
            )
        parts.append(found)
        rows.append(mine)
    measures = np.concatenate(parts).astype(np.float32)
    order = np.argsort(np.concatenate(rows))
    return measures[order]


def _read(file: Path, fingerprint: str) -> np.ndarray | None:
    """Reads kept numbers; None if they are of another store, or damaged."""
    if not file.is_file():
        return None
    try:
        with open_npz(file, cure="") as kept:
            names = ("of", "measures", "sha256")
            of, found, sha256 = (kept.read(name) for name in names)
    except InputError:
        return None
    whole = str(of) == fingerprint and str(sha256) == hash_arrays(found)
    return found if whole else None
