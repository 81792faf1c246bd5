"""What is in a batch: which windows, in which order, with what beside the signal."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from eegkd.cache.read import TeacherTensor
from eegkd.data.batches.augment import UNCHANGED, AugmentConfig, augment
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError

Prepare = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Cache = Mapping[str, Mapping[str, np.ndarray | TeacherTensor]]


class ZScore(NamedTuple):
    """Mean and standard deviation a channel, fitted on training rows."""

    mean: np.ndarray
    std: np.ndarray


def fit_train_zscore(
    store: WindowStore, rows: np.ndarray, *, chunk: int = 256
) -> ZScore:
    """Fits mean and standard deviation a channel over the windows of `rows`.

    Sums are kept in float64, over one chunk of windows at a time.

    Raises:
        InputError: If a channel is flat in all of them.
    """
    total = np.zeros(store.signal.shape[1])
    square = np.zeros_like(total)
    for part in np.array_split(rows, max(1, math.ceil(len(rows) / chunk))):
        x = np.asarray(store.signal[part], np.float64)
        total += x.sum(axis=(0, 2))
        square += np.einsum("nct,nct->c", x, x)
    count = len(rows) * store.signal.shape[2]
    mean = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, 0))
    flat = np.flatnonzero(std <= 1e-6 * np.maximum(np.abs(mean), 1e-6))
    if len(flat):
        name = store.manifest["channels"][flat[0]]
        raise InputError(f"Channel {name} is flat in every training window; drop it.")
    return ZScore(mean.astype(np.float32), std.astype(np.float32))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BatchMaker:
    """Gathers the windows of given rows into one batch.

    Attributes:
        store: Where the windows are.
        labels: Aligned with the store's rows; may differ from the store's own.
        prepare: A system's `prepare`, called a window; None adds nothing.
        zscore: Applied to the signal, if given.
        augment: Applied after it; what `prepare` sees.
        cache: Stage name -> tensor name -> array aligned with the store's rows, or
            a `TeacherTensor`, which is asked for the view that the signal shows.
        marks: More that a batch holds, by key; arrays aligned with the store's rows.
    """

    store: WindowStore
    labels: np.ndarray
    prepare: Prepare | None = None
    zscore: ZScore | None = None
    augment: AugmentConfig = UNCHANGED
    cache: Cache | None = None
    marks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __call__(self, rows: np.ndarray, view: np.ndarray | int = 0) -> dict[str, Any]:
        """Returns `signal label subject window_id`, what `prepare` adds, the cache.

        Args:
            rows: Of the store.
            view: Which view of each, where windows are augmented: one, or `[b]`.
        """
        signal = np.asarray(self.store.signal[rows])
        if self.zscore is not None:
            signal = (signal - self.zscore.mean[:, None]) / self.zscore.std[:, None]
        window_id = self.store.index["window_id"][rows]
        signal = augment(signal, window_id, view, self.augment)
        batch: dict[str, Any] = {
            "signal": signal,
            "label": self.labels[rows],
            "subject": self.store.subjects.codes[rows],
            "window_id": window_id.astype(np.int32),
            **{key: values[rows] for key, values in self.marks.items()},
        }
        if self.prepare is not None:
            batch |= _prepare_each(batch, self.prepare)
        if self.cache:
            batch["cache"] = {
                stage: {name: _read(array, rows, view) for name, array in group.items()}
                for stage, group in self.cache.items()
            }
        return batch

    def __getstate__(self) -> dict[str, Any]:
        """Leaves memory-mapped tensors as file names: a worker maps them again."""
        state = dict(self.__dict__)
        state["cache"] = self.cache and {
            stage: {name: _to_reference(array) for name, array in group.items()}
            for stage, group in self.cache.items()
        }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Maps again what `__getstate__` left as file names."""
        cache = state["cache"] and {
            stage: {name: _from_reference(array) for name, array in group.items()}
            for stage, group in state["cache"].items()
        }
        self.__dict__.update(state | {"cache": cache})


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Which rows make batch i: a pure function of seed, rows and labels.

    An epoch has `len(rows) // batch_size` full batches; the few windows left over
    differ from epoch to epoch.

    Attributes:
        rows: Rows of the store to draw from.
        labels: Their labels, in the order of `rows`.
        batch_size: Of the global batch.
        seed: Of the shuffling.
        balanced: Draw every class equally often in an epoch; unlabelled rows keep
            their natural share.
    """

    rows: np.ndarray
    labels: np.ndarray
    batch_size: int
    seed: int
    balanced: bool = False

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in one pass."""
        return len(self.rows) // self.batch_size

    def epoch(self, number: int) -> np.ndarray:
        """Returns the rows of one epoch, shuffled."""
        rng = np.random.default_rng([self.seed, number])
        if not self.balanced:
            return self.rows[rng.permutation(len(self.rows))]
        unlabelled = np.flatnonzero(self.labels < 0)
        classes = np.unique(self.labels[self.labels >= 0])
        share, rest = divmod(len(self.rows) - len(unlabelled), max(len(classes), 1))
        extra = rng.permutation(len(classes))[:rest]
        picks = [unlabelled]
        for place, label in enumerate(classes):
            mine = np.flatnonzero(self.labels == label)
            num = share + int(place in extra)
            rounds = [rng.permutation(mine) for _ in range(math.ceil(num / len(mine)))]
            picks.append(np.concatenate([mine[:0], *rounds])[:num])
        return self.rows[rng.permutation(np.concatenate(picks))]


def eval_batches(
    store: WindowStore,
    rows: np.ndarray,
    *,
    batch_size: int,
    prepare: Prepare | None = None,
    zscore: ZScore | None = None,
    labels: np.ndarray | None = None,
    cache: Cache | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields `rows` in order, in full batches; `valid` is False where one is padding.

    The last batch repeats its last row, so every batch has one compiled shape.
    """
    labels = store.labels if labels is None else labels
    maker = BatchMaker(
        store=store, labels=labels, prepare=prepare, zscore=zscore, cache=cache
    )
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        pad = batch_size - len(part)
        batch = maker(np.concatenate([part, np.repeat(part[-1:], pad)]))
        yield batch | {"valid": np.arange(batch_size) < len(part)}


def _read(
    array: np.ndarray | TeacherTensor, rows: np.ndarray, view: np.ndarray | int
) -> np.ndarray:
    if isinstance(array, TeacherTensor):
        return array.gather(rows, view)
    return np.asarray(array[rows])


def _prepare_each(batch: Mapping[str, Any], prepare: Prepare) -> dict[str, np.ndarray]:
    examples = [
        prepare({key: value[i] for key, value in batch.items()})
        for i in range(len(batch["signal"]))
    ]
    return {key: np.stack([row[key] for row in examples]) for key in examples[0]}


def _to_reference(array: np.ndarray | TeacherTensor) -> Any:
    """Names the file of an array that is a whole memory map, whatever its dtype."""
    if isinstance(array, TeacherTensor):
        return array
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    whole = array.flags.c_contiguous and array.nbytes == root.nbytes
    if not (isinstance(root, np.memmap) and root.filename and whole):
        return np.asarray(array)
    return ("memmap", str(root.filename), array.dtype, array.shape, root.offset)


def _from_reference(array: Any) -> np.ndarray | TeacherTensor:
    if isinstance(array, np.ndarray | TeacherTensor):
        return array
    _, file, dtype, shape, offset = array
    return np.memmap(file, dtype=dtype, mode="r", shape=shape, offset=offset)
