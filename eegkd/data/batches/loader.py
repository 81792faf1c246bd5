"""Batches of windows: an order that depends on a seed alone, resumable at any batch."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from eegkd.data.batches.augment import UNCHANGED
from eegkd.data.batches.maker import (
    PLAIN,
    BatchMaker,
    BatchPlan,
    Order,
    ZScore,
    eval_batches,
    fit_train_zscore,
)
from eegkd.data.batches.recordings import RecordingMaker, recording_maker
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError

__all__ = [
    "BatchPlan",
    "Loader",
    "ZScore",
    "eval_batches",
    "fit_train_zscore",
    "make_loader",
]


@dataclasses.dataclass(eq=False)
class BatchSource:
    """A grain source whose element i is the whole batch i (of one shard)."""

    order: Order
    maker: BatchMaker | RecordingMaker
    num_batches: int
    shard: tuple[int, int]
    first: int = 0
    _epoch: tuple[int, np.ndarray] | None = dataclasses.field(
        default=None, init=False, repr=False
    )

    def __len__(self) -> int:
        """Number of batches from `first` to the end."""
        return self.num_batches - self.first

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Makes batch `first + index`."""
        epoch, place = divmod(self.first + int(index), self.order.batches_per_epoch)
        # One epoch's order is kept; a thread at an epoch's edge at worst redoes it.
        known = self._epoch
        if known is None or known[0] != epoch:
            known = self._epoch = (epoch, self.order.epoch(epoch))
        size = self.order.batch_size // self.shard[1]
        start = place * self.order.batch_size + self.shard[0] * size
        view = self.maker.plan.augment.view(epoch)
        return self.maker(known[1][start : start + size], view)


class Loader:
    """Iterates over batches; `get_state` and `set_state` resume at the exact batch.

    The state does not depend on workers, threads or the number of shards.
    """

    def __init__(self, source: BatchSource, *, workers: int, threads: int) -> None:
        """Starts at the first batch, with processes and threads that read ahead."""
        self._source = source
        self._workers = workers
        self._threads = threads
        self._next = 0
        self._iterator: Iterator[dict[str, Any]] | None = None

    def __len__(self) -> int:
        """Number of all batches, past ones included."""
        return self._source.num_batches

    @property
    def batches_per_epoch(self) -> int:
        """Number of full batches in one pass over the rows."""
        return self._source.order.batches_per_epoch

    def __iter__(self) -> "Loader":
        """Returns itself: a loader has one position."""
        return self

    def __next__(self) -> dict[str, Any]:
        """Returns the next batch."""
        if self._next >= self._source.num_batches:
            self.close()
            raise StopIteration
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._next += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the position and its order, as JSON values."""
        return {"next_batch": self._next, "order": self._fingerprint()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Moves to a position that `get_state` returned.

        Raises:
            InputError: If its rows, labels, seed or batch size differ.
        """
        if state["order"] != self._fingerprint():
            raise InputError(
                "The checkpoint's data order differs from this run's: rows, labels, "
                "seed, batch size or sampler changed. Resume with the same settings."
            )
        self.close()
        self._next = int(state["next_batch"])

    def close(self) -> None:
        """Stops the threads and processes that read ahead."""
        if self._iterator is not None:
            self._iterator.close()  # type: ignore[attr-defined]
            self._iterator = None

    def _start(self) -> Iterator[dict[str, Any]]:
        import grain

        source = dataclasses.replace(self._source, first=self._next)
        dataset = grain.MapDataset.source(source).to_iter_dataset(
            grain.ReadOptions(
                num_threads=self._threads, prefetch_buffer_size=2 * self._threads
            )
        )
        if self._workers:
            from absl import flags

            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self._workers)
            )
        return iter(dataset)

    def _fingerprint(self) -> str:
        order = self._source.order
        digest = hashlib.sha256()
        for array in (order.rows, order.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(repr((order.batch_size, order.seed, order.balanced)).encode())
        return digest.hexdigest()[:16]


def make_loader(
    store: WindowStore,
    rows: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    num_epochs: int | None = None,
    num_steps: int | None = None,
    plan: BatchPlan = PLAIN,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
    threads: int = 2,
) -> Loader:
    """Makes shuffled training batches of `rows`.

    The order of windows is a function of `(seed, epoch, rows, labels)` alone: shards
    cut one global batch into equal parts, whatever their number.

    Args:
        store: Store of the windows.
        rows: Rows to train on.
        batch_size: Global batch size, over all shards.
        seed: Seed of the order.
        num_epochs: Number of passes; this or `num_steps`.
        num_steps: Number of batches.
        plan: Contents of a batch; epoch e shows view e modulo `num_views` of its
            augmentation.
        shard: Number of this host, and of all hosts.
        workers: Processes that make batches; 0 uses threads only.
        threads: Threads that read ahead.

    Raises:
        InputError: If a batch is larger than the rows, or cannot be cut into shards.
    """
    if (num_epochs is None) == (num_steps is None):
        raise ValueError("Give num_epochs or num_steps, one of them.")
    if plan.recordings:  # They are not changed at random.
        plan = dataclasses.replace(plan, augment=UNCHANGED)
    maker: BatchMaker | RecordingMaker = BatchMaker(store=store, plan=plan)
    balanced = plan.sampler == "balanced" and not plan.recordings
    if plan.recordings:
        maker = recording_maker(maker, rows, longest=np.arange(len(store)))
        rows = np.arange(len(maker.recordings))
    if not 1 <= batch_size <= len(rows):
        raise InputError(
            f"Batch size {batch_size} with {len(rows)} training windows: "
            "lower the batch size."
        )
    if batch_size % shard[1]:
        raise InputError(
            f"Batch size {batch_size} cannot be cut into {shard[1]} equal shards."
        )
    order = Order(
        rows=np.asarray(rows),
        labels=maker.labels[rows],
        batch_size=batch_size,
        seed=seed,
        balanced=balanced,
    )
    num = num_steps
    if num is None:
        num = order.batches_per_epoch * (num_epochs or 0)
    return Loader(
        BatchSource(order, maker, num, shard), workers=workers, threads=threads
    )
