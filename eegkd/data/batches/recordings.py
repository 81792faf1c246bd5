"""Batches of whole recordings in time order, padded, with a mask."""

import dataclasses
from typing import Any

import numpy as np

from eegkd.data.batches.maker import BatchMaker, BatchPlan
from eegkd.data.windows.store import Store
from eegkd.errors import InputError


def whole_recordings(store: Store, rows: np.ndarray) -> list[np.ndarray]:
    """Divides rows by recording, each in time order.

    Raises:
        InputError: If windows overlap: a recording would be read several times over.
    """
    if not store.index["on_grid"][rows].all():
        raise InputError(
            "A stage reads whole recordings, one window after another, and the windows "
            "of this store overlap: prepare it with --data.overlap 0."
        )
    names, first, codes = np.unique(
        store.index["recording_id"][rows], return_index=True, return_inverse=True
    )
    start = store.index["start_s"][rows]
    return [
        rows[np.flatnonzero(codes == i)[np.argsort(start[codes == i], kind="stable")]]
        for i in np.argsort(first)
        if len(names)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RecordingMaker:
    """Gathers whole recordings into one batch, `[r, n, ...]`.

    Attributes:
        maker: Maker of the windows.
        recordings: Rows of each recording, in time order.
        length: Windows per recording in a batch: that of the longest.
    """

    maker: BatchMaker
    recordings: list[np.ndarray]
    length: int

    @property
    def plan(self) -> BatchPlan:
        """Plan of a batch of windows; recordings are not changed at random."""
        return self.maker.plan

    @property
    def labels(self) -> np.ndarray:
        """One label per recording: there is none to draw it by."""
        return np.zeros(len(self.recordings), np.int32)

    def __call__(self, numbers: np.ndarray, view: Any = 0) -> dict[str, Any]:
        """Returns the batch of some recordings.

        Padding repeats a recording's last window, with label -1; `mask bool[r, n]` is
        False there.

        Args:
            numbers: Places in `recordings`.
            view: Not used: recordings are not augmented.
        """
        del view
        rows = [self.recordings[i] for i in numbers]
        mask = np.arange(self.length) < np.array([[len(r)] for r in rows])
        padded = [np.pad(r, (0, self.length - len(r)), mode="edge") for r in rows]
        flat = self.maker(np.concatenate(padded))
        shape = (len(rows), self.length)
        batch: dict[str, Any] = _reshaped(flat, shape)
        hidden = mask if batch["label"].ndim == 2 else mask[..., None]
        batch["label"] = np.where(hidden, batch["label"], -1).astype(
            batch["label"].dtype
        )
        return batch | {"mask": mask}


def _reshaped(tree: Any, shape: tuple[int, int]) -> Any:
    if isinstance(tree, dict):
        return {name: _reshaped(value, shape) for name, value in tree.items()}
    return np.reshape(tree, (*shape, *np.shape(tree)[1:]))


def recording_maker(
    maker: BatchMaker, rows: np.ndarray, *, longest: np.ndarray | None = None
) -> RecordingMaker:
    """Makes the batches of the recordings of some rows.

    Args:
        maker: Maker of the windows.
        rows: Rows of the store.
        longest: Rows whose longest recording sets the length, where one compiled
            program serves several sets; None is `rows`.
    """
    recordings = whole_recordings(maker.store, rows)
    others = recordings if longest is None else whole_recordings(maker.store, longest)
    length = max(len(recording) for recording in (*recordings, *others))
    return RecordingMaker(maker=maker, recordings=recordings, length=length)
