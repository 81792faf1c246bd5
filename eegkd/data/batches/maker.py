"""Contents of a batch: windows, their order, and the arrays next to the signal."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from eegkd.cache.read import TeacherTensor
from eegkd.data.batches.augment import UNCHANGED, AugmentConfig, augment
from eegkd.data.windows.store import Store, WindowStore
from eegkd.errors import InputError

Prepare = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Cache = Mapping[str, Mapping[str, np.ndarray | TeacherTensor]]


class ZScore(NamedTuple):
    """Mean and standard deviation per channel, fitted on training rows."""

    mean: np.ndarray
    std: np.ndarray


def fit_train_zscore(
    store: WindowStore, rows: np.ndarray, *, chunk: int = 256
) -> ZScore:
    """Fits mean and standard deviation per channel over the windows of `rows`.

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
class BatchPlan:
    """Contents of a batch besides the windows of a store.

    Attributes:
        sampler: "balanced" draws every class equally often; of windows with several
            labels, those without any are a class of their own.
        labels: Labels aligned with the store's rows; None takes the store's.
        prepare: `batch -> batch` of a system; None adds nothing.
        zscore: Statistics from `fit_train_zscore`, where the store asks for them.
        augment: Random changes, after the z-score; `prepare` sees their result.
        cache: Stage name -> tensor name -> array aligned with the store's rows, or
            a `TeacherTensor`, which is asked for the view that the signal shows.
        extras: More arrays by key, aligned with the store's rows.
        recordings: True if a batch is whole recordings in place of windows.
    """

    sampler: Literal["natural", "balanced"] = "natural"
    labels: np.ndarray | None = None
    prepare: Prepare | None = None
    zscore: ZScore | None = None
    augment: AugmentConfig = UNCHANGED
    cache: Cache | None = None
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    recordings: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """Replaces memory-mapped tensors by file names: a worker maps them again."""
        return self.__dict__ | {"cache": _each(self.cache, _to_reference)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Maps tensors that `__getstate__` replaced by file names."""
        self.__dict__.update(state | {"cache": _each(state["cache"], _from_reference)})


PLAIN = BatchPlan()
"""The store's windows and labels alone, in their natural shares."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BatchMaker:
    """Gathers the windows of given rows into one batch.

    Attributes:
        store: Store of the windows.
        plan: Contents of a batch besides windows.
    """

    store: Store
    plan: BatchPlan = PLAIN

    @property
    def labels(self) -> np.ndarray:
        """Labels aligned with the store's rows; they may differ from the store's."""
        return (
            self.store.index["label"] if self.plan.labels is None else self.plan.labels
        )

    @functools.cached_property
    def subjects(self) -> np.ndarray:
        """One integer per store row: who its window is of."""
        _, codes = np.unique(self.store.index["subject"], return_inverse=True)
        return codes.astype(np.int32)

    def __call__(self, rows: np.ndarray, view: np.ndarray | int = 0) -> dict[str, Any]:
        """Returns the arrays of a batch.

        These are the store's, `label subject window_id`, the extras, the additions of
        `prepare`, and the cache.

        Args:
            rows: Rows of the store.
            view: View of each, where windows are augmented: one, or `[b]`.
        """
        plan = self.plan
        window_id = self.store.index["window_id"][rows]
        batch: dict[str, Any] = dict(self.store.read(rows))
        if "signal" in batch:
            signal = batch["signal"]
            if plan.zscore is not None:
                signal = (signal - plan.zscore.mean[:, None]) / plan.zscore.std[:, None]
            batch["signal"] = augment(signal, window_id, view, plan.augment)
        batch |= {
            "label": self.labels[rows],
            "subject": self.subjects[rows],
            "window_id": window_id.astype(np.int32),
            **{key: values[rows] for key, values in plan.extras.items()},
        }
        if plan.prepare is not None:
            batch = dict(plan.prepare(batch))
        if plan.cache:
            batch["cache"] = _each(plan.cache, lambda array: _read(array, rows, view))
        return batch


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Rows of batch i, as a pure function of seed, rows and labels.

    An epoch has `len(rows) // batch_size` full batches; the few windows left over
    differ from epoch to epoch.

    Attributes:
        rows: Rows of the store to draw from.
        labels: Labels, in the order of `rows`.
        batch_size: Global batch size.
        seed: Seed of the shuffling.
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
        """Number of full batches in one pass."""
        return len(self.rows) // self.batch_size

    def epoch(self, number: int) -> np.ndarray:
        """Returns the rows of one epoch, shuffled."""
        rng = np.random.default_rng([self.seed, number])
        if not self.balanced:
            return self.rows[rng.permutation(len(self.rows))]
        unlabelled, classes = self._by_class()
        share, rest = divmod(len(self.rows) - len(unlabelled), max(len(classes), 1))
        extra = rng.permutation(len(classes))[:rest]
        picks = [unlabelled]
        for place, mine in enumerate(classes):
            num = share + int(place in extra)
            rounds = [rng.permutation(mine) for _ in range(math.ceil(num / len(mine)))]
            picks.append(np.concatenate([mine[:0], *rounds])[:num])
        return self.rows[rng.permutation(np.concatenate(picks))]

    def _by_class(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Returns the places of unlabelled rows, and those of each class.

        A row of several labels is in each of its classes; one without any, in the last.
        """
        labels = self.labels
        if labels.ndim == 1:
            classes = np.unique(labels[labels >= 0])
            found = [np.flatnonzero(labels == label) for label in classes]
            return np.flatnonzero(labels < 0), found
        known, has = (labels >= 0).any(axis=1), labels == 1
        found = [np.flatnonzero(column) for column in has.T]
        found.append(np.flatnonzero(known & ~has.any(axis=1)))
        return np.flatnonzero(~known), [mine for mine in found if len(mine)]


def eval_batches(
    maker: Callable[[np.ndarray], dict[str, Any]], rows: np.ndarray, *, batch_size: int
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yields batches of `rows` in order, and `bool[b]`, False where one is padding.

    The last batch repeats its last row, so every batch has one compiled shape.
    """
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        pad = batch_size - len(part)
        batch = maker(np.concatenate([part, np.repeat(part[-1:], pad)]))
        yield batch, np.arange(batch_size) < len(part)


def _each(cache: Cache | None, fn: Callable[[Any], Any]) -> Any:
    """Applies a function to every tensor of a cache, if there is one."""
    return cache and {
        stage: {name: fn(array) for name, array in group.items()}
        for stage, group in cache.items()
    }


def _read(
    array: np.ndarray | TeacherTensor, rows: np.ndarray, view: np.ndarray | int
) -> np.ndarray:
    if isinstance(array, TeacherTensor):
        return array.gather(rows, view)
    return np.asarray(array[rows])


def _to_reference(array: np.ndarray | TeacherTensor) -> Any:
    """Returns the file of an array that is a whole memory map, whatever its dtype."""
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
