"""What a store's windows were before they were resampled and normalised.

`recorded.npz` lies beside a store's own files. Its fingerprint does not cover it: what
is trained on the windows is the same without it, and older stores have none.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.data.recordings.recording import Recording
from eegkd.data.windows.cutting import Windows
from eegkd.errors import InputError
from eegkd.host.arrays import open_npz
from eegkd.host.sealed import hash_arrays

RECORDED = "recorded.npz"
_CURE = (
    "Delete that file: nothing is known then of how large the signals were. Or prepare "
    "the store again."
)


class Recorded(NamedTuple):
    """Facts of all recordings of a store.

    Attributes:
        rate: `f64[r]`, samples per second as recorded, in the manifest's order.
        units: `str[r, c]`, before any z-score.
        scale: `f32[n, c]`, what a z-score divided each window's channels by; `[0, 0]`
            where none did.
    """

    rate: np.ndarray
    units: np.ndarray
    scale: np.ndarray


def recorded_json(recording: Recording, windows: Windows) -> dict[str, Any] | None:
    """Returns the facts of one preprocessed recording as JSON values, if there are."""
    origin = recording.origin
    if origin is None:
        return None
    scale = np.zeros(0) if windows.scale is None else windows.scale
    packed = base64.b64encode(np.ascontiguousarray(scale, "<f4").tobytes()).decode()
    return {"rate": origin.rate, "units": origin.units, "scale": packed}


def recorded_file(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, bytes]:
    """Returns the name and the content of the file, from all of `recorded_json`.

    Parts that an older version left have no facts: then there is no file.
    """
    known = [part for part in parts if part]
    if len(known) < len(parts):
        return {}
    units = np.array([part["units"] for part in known], str)
    packed = b"".join(base64.b64decode(part["scale"]) for part in known)
    shape = (-1, units.shape[1]) if packed else (0, 0)
    found = Recorded(
        rate=np.array([part["rate"] for part in known], np.float64),
        units=units,
        scale=np.frombuffer(packed, "<f4").reshape(shape),
    )
    buffer = io.BytesIO()
    np.savez(buffer, **found._asdict(), sha256=np.array(hash_arrays(*found)))
    return {RECORDED: buffer.getvalue()}


def read_recorded(
    folder: Path | None, num_recordings: int, shape: Sequence[int]
) -> Recorded | None:
    """Reads the file of a store; None where it has none.

    Args:
        folder: The store; None in memory.
        num_recordings: Recordings of the store.
        shape: Shape of its signals.

    Raises:
        InputError: If the file was altered, or is of another store.
    """
    if folder is None or not (folder / RECORDED).is_file():
        return None
    with open_npz(folder / RECORDED, cure=_CURE) as kept:
        found = Recorded(*(kept.read(name) for name in Recorded._fields))
        whole = str(kept.read("sha256")) == hash_arrays(*found)
    if not whole:
        raise InputError(f"{folder / RECORDED} was altered (sha256 differs). {_CURE}")
    fits = found.units.shape == (num_recordings, shape[1])
    fits &= len(found.rate) == num_recordings
    fits &= not found.scale.size or found.scale.shape == tuple(shape[:2])
    if not fits:
        raise InputError(f"{folder / RECORDED} is of another store. {_CURE}")
    return found
