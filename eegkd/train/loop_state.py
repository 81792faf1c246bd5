"""State of the training loop besides the compiled step: contents of a checkpoint.

A run has one member, or several that one program trains together (`train.sweep`): then
every array of its state and every metric has a leading axis over the members.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.errors import InputError
from eegkd.train import checkpoint
from eegkd.train.state import TrainState, copy_arrays, unstack
from eegkd.typing import Batch, PyTree

Row = dict[str, float]


class Loader(Protocol):
    """Source of batches, as the loop uses it."""

    def __next__(self) -> Batch:
        """Returns the next batch."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Returns the position, as JSON values."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Moves to a position."""
        ...


@dataclasses.dataclass
class History:
    """Record of one member in a run of the loop.

    Attributes:
        rows: Means of the step's metrics over `log_every` steps, and evaluations
            (keys as `evaluate` names them); each row has a "step".
        best: The state with the parameters of the best evaluation; the last state
            where nothing was evaluated.
        best_step: Updates done at the best evaluation.
        best_value: The monitored metric there.
        resumed_from: The step the run was resumed at; 0 if it was not.
    """

    rows: list[Row]
    best: TrainState
    best_step: int = 0
    best_value: float | None = None
    resumed_from: int = 0


@dataclasses.dataclass
class Track:
    """Numbers of one member on the host, as JSON values.

    Attributes:
        rows: As in `History`.
        recent: Metrics of the row in progress.
        best_step: As in `History`.
        best_value: As in `History`.
        best_tie: The metric that decides ties there.
    """

    rows: list[Row] = dataclasses.field(default_factory=list)
    recent: list[Row] = dataclasses.field(default_factory=list)
    best_step: int = 0
    best_value: float | None = None
    best_tie: float = 0.0

    def improves(self, value: float, step: int, mode: str, tie: float = 0.0) -> bool:
        """Records a value if it is the best so far; returns True if it is."""
        sign = 1 if mode == "max" else -1
        if self.best_value is not None:
            best = sign * self.best_value, sign * self.best_tie
            if (sign * value, sign * tie) <= best:
                return False
        self.best_step, self.best_value, self.best_tie = step, value, tie
        return True


class LoopState:
    """The loop's own state: everything a checkpoint has to hold."""

    def __init__(
        self,
        state: TrainState,
        *,
        keeps_best: bool,
        config_hash: str,
        names: Sequence[str] | None = None,
    ) -> None:
        """Starts at a state; `names` are those of its members, if it is stacked."""
        self.state: TrainState = state
        self.step: int = _step(state)
        best = copy_arrays((state.params, state.state)) if keeps_best else None
        self.best: PyTree = best
        self.names = names
        self.tracks: list[Track] = [Track() for _ in names or [""]]
        self.resumed_from: int = 0
        self.pending: list[tuple[int, Any]] = []  # metrics still on the device
        self.config_hash = config_hash

    def advance(self, state: TrainState, metrics: Any) -> None:
        """Adds a step's results, without waiting for them."""
        self.state = state
        self.step += 1
        self.pending.append((self.step, metrics))
        if len(self.pending) > 2:
            # Two steps ahead keeps a device busy; more would hold more batches.
            jax.block_until_ready(self.pending[-3][1])

    def fetch(self, checkpoint_dir: str | Path | None) -> None:
        """Fetches pending metrics to the host, and checks that they are finite."""
        for step, metrics in self.pending:
            values = {k: np.ravel(v) for k, v in jax.device_get(metrics).items()}
            for i, track in enumerate(self.tracks):
                row = {k: float(v[i]) for k, v in values.items()}
                if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
                    name = self.names[i] if self.names else ""
                    raise InputError(_not_finite(step, row, checkpoint_dir, name))
                track.recent.append(row)
        self.pending = []

    def mean_rows(self, checkpoint_dir: str | Path | None) -> list[Row]:
        """Averages the metrics since the last row, member by member."""
        self.fetch(checkpoint_dir)
        means = []
        for track in self.tracks:
            rows, track.recent = track.recent, []
            mean = {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}
            means.append({"step": self.step, **mean})
        return means

    def judge(
        self, values: Sequence[Row], monitor: str, mode: str, tie: str = ""
    ) -> None:
        """Copies the parameters of members that are the best so far.

        A monitored value that is undefined, as it then is at every evaluation, gives
        way to `tie`.
        """
        better = []
        for track, row in zip(self.tracks, values, strict=True):
            if monitor not in row:
                raise ValueError(f"No metric {monitor!r}; there are {', '.join(row)}.")
            value, second = row[monitor], row.get(tie, 0.0)
            if tie and not math.isfinite(value):
                value, second = second, 0.0
                del row[monitor]  # No log line holds a NaN.
            if not math.isfinite(value):
                raise InputError(
                    f"The validation metric {monitor!r} is {value} at step "
                    f"{self.step}: the validation set may hold one class only."
                )
            better.append(track.improves(value, self.step, mode, second))
        now = (self.state.params, self.state.state)
        if all(better):
            self.best = copy_arrays(now)
        elif any(better):
            self.best = _choose(np.array(better), now, self.best)

    def histories(self) -> list[History]:
        """Returns the results of every member when the loop has ended."""
        best = self.state
        if self.best is not None:
            best = dataclasses.replace(best, params=self.best[0], state=self.best[1])
        states = unstack(best, len(self.names)) if self.names else [best]
        return [
            History(t.rows, state, t.best_step, t.best_value, self.resumed_from)
            for t, state in zip(self.tracks, states, strict=True)
        ]

    def save(self, folder: str | Path, loader: Loader) -> None:
        """Writes a checkpoint."""
        meta = {
            "config_hash": self.config_hash,
            "loader": loader.get_state(),
            "members": [dataclasses.asdict(track) for track in self.tracks],
        }
        checkpoint.save(folder, self.step, (self.state, self.best), meta)

    def restore(self, folder: str | Path, loader: Loader) -> None:
        """Restores the newest whole checkpoint, if there is one."""
        found = checkpoint.restore(folder, (self.state, self.best))
        if found is None:
            return
        (self.state, self.best), meta = found
        if meta["config_hash"] != self.config_hash:
            raise InputError(
                f"The checkpoint in {folder} was made with other settings "
                f"({meta['config_hash']}, not {self.config_hash}): use the same ones, "
                "or another --out."
            )
        self.step = self.resumed_from = _step(self.state)
        self.tracks = [Track(**member) for member in meta["members"]]
        loader.set_state(meta["loader"])


def _step(state: TrainState) -> int:
    """Returns the updates done, which are those of every member."""
    return int(np.ravel(state.step)[0])


@jax.jit
def _choose(better: Any, new: Any, old: Any) -> Any:
    """Selects the members' arrays from `new` where they are better."""

    def choose(x, y):
        return jnp.where(jnp.reshape(better, (-1, *[1] * (x.ndim - 1))), x, y)

    return jax.tree.map(choose, new, old)


def _not_finite(step: int, row: Row, folder: str | Path | None, name: str) -> str:
    raw = {k.partition("/")[2]: v for k, v in row.items() if k.startswith("raw/")}
    bad = [term for term, value in raw.items() if not math.isfinite(value)]
    where = f"in {', '.join(bad)}" if bad else "in the gradient"
    whose = f" of {name}" if name else ""
    kept = f"; the last good checkpoint is in {folder}" if folder else ""
    return (
        f"The loss{whose} is not finite at step {step} ({where}){kept}. Look for NaN "
        "in the data, or lower optim.learning_rate."
    )
