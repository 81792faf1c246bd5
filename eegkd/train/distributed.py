"""Several processes as one: joining them, and deciding things together.

Every process runs the same program on its own devices and its own part of every batch.
Files are written by the first process alone, on a disk that all of them read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eegkd.errors import InputError, Interrupted

AUTO = "auto"
Result = TypeVar("Result")
# A crashed process must not keep the others waiting for minutes.
_SHUTDOWN_S = 20
_AHEAD = 2


def connect(
    num_processes: int,
    coordinator: str = AUTO,
    process_id: int | None = None,
    *,
    local_devices: Sequence[int] | None = None,
) -> None:
    """Joins this process to the others, before the first use of a device.

    Args:
        num_processes: Number of processes.
        coordinator: `host:port` on which the first one listens, or "auto": found by
            `jax.distributed` from the cluster's own variables (Slurm, MPI, TPU pods,
            Kubernetes).
        process_id: Number of this process, from 0; None with "auto".
        local_devices: GPUs of this process; None is all.

    Raises:
        InputError: If the processes do not reach each other.
    """
    if coordinator != AUTO and process_id is None:
        raise InputError("--coordinator HOST:PORT needs --process_id, from 0.")
    if process_id is not None and not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id {process_id} of {num_processes} processes: it counts from 0."
        )
    # Its handler would swallow SIGTERM; the loop has its own, and saves.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            None if coordinator == AUTO else coordinator,
            None if coordinator == AUTO else num_processes,
            process_id,
            local_device_ids=local_devices,
            shutdown_timeout_seconds=_SHUTDOWN_S,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"Cannot join {num_processes} processes at {coordinator}: "
            f"{str(error).splitlines()[0][:200]}. Check --coordinator, --process_id "
            "and --processes."
        ) from error
    if jax.process_count() != num_processes:
        raise InputError(
            f"--processes {num_processes}, but {jax.process_count()} have joined."
        )


def is_first() -> bool:
    """Returns whether this process writes shared files; true if it is alone."""
    return jax.process_index() == 0


def shard() -> tuple[int, int]:
    """Returns the number of this process and of all, as loaders take it."""
    return jax.process_index(), jax.process_count()


def first_only(task: Callable[[], object]) -> None:
    """Runs `task` in the first process while the others wait.

    Raises:
        InputError: In the others, if it failed in the first; there, what it raised.
        Interrupted: Likewise, if it was stopped.
    """
    if jax.process_count() == 1:
        task()
        return
    error: Exception | None = None
    if is_first():
        try:
            task()
        except Exception as caught:
            error = caught
    ended = [error is not None, isinstance(error, Interrupted)]
    failed, stopped = multihost_utils.broadcast_one_to_all(np.array(ended))
    if error is not None:
        raise error
    if stopped:
        raise Interrupted("The first process was stopped; see its message.")
    if failed:
        raise InputError("The first process failed; see its message.")


def in_turn(task: Callable[[], Result]) -> Result:
    """Runs `task` in the first process, then in the others, which find its files.

    Raises:
        InputError: As `first_only` does.
        Interrupted: As `first_only` does.
    """
    results: list[Result] = []
    first_only(lambda: results.append(task()))
    return results[0] if results else task()


def of_first(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the first process's numbers in every process.

    Processes decide alike only by equal numbers, and two machines may differ in the
    last bit.
    """
    if jax.process_count() == 1:
        return dict(values)
    row = np.array(list(values.values()), np.float64).view(np.uint32)
    shared = np.asarray(multihost_utils.broadcast_one_to_all(row))
    return dict(zip(values, shared.view(np.float64).tolist(), strict=True))


class Votes:
    """Agrees across processes to stop or save at the same step.

    With several processes an answer is two steps old, so that nobody waits for it; they
    ask once per step, all of them.
    """

    def __init__(self) -> None:
        """Starts without pending wishes."""
        self._sent: list[jax.Array] = []
        if jax.process_count() > 1:
            over = Mesh(np.array(jax.devices()), ("all",))
            self._split = NamedSharding(over, PartitionSpec("all"))
            whole = NamedSharding(over, PartitionSpec())
            self._any = jax.jit(lambda x: jnp.any(x, axis=0), out_shardings=whole)

    def __call__(self, *wishes: bool) -> tuple[bool, ...]:
        """Sends this process's wishes; returns all wishes of two calls ago."""
        if jax.process_count() == 1:
            return wishes
        mine = np.tile(np.array(wishes), (jax.local_device_count(), 1))
        every = jax.make_array_from_process_local_data(self._split, mine)
        self._sent.append(self._any(every))
        if len(self._sent) <= _AHEAD:
            return tuple(False for _ in wishes)
        return tuple(bool(x) for x in np.asarray(self._sent.pop(0)))

    def clear(self) -> None:
        """Forgets pending wishes: they have been granted."""
        self._sent.clear()
