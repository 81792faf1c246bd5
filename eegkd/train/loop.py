"""The training loop: batches in, the state out; resumable at any step."""

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import numpy as np

from eegkd.errors import InputError, Interrupted
from eegkd.train import checkpoint
from eegkd.train.parallel import Runner
from eegkd.train.state import TrainState, copy_arrays
from eegkd.typing import Batch, PyTree, Variables

Row = dict[str, float]


class Loader(Protocol):
    """What the loop needs of a source of batches."""

    def __next__(self) -> Batch:
        """Returns the next batch."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Returns the position, as JSON can hold it."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Moves to a position."""
        ...


@dataclasses.dataclass
class History:
    """What a run of the loop saw.

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


def train(
    runner: Runner,
    state: TrainState,
    loader: Loader,
    *,
    frozen: PyTree,
    upstream: Mapping[str, Variables],
    num_steps: int,
    checkpoint_dir: str | Path | None = None,
    save_every_s: float = 60.0,
    config_hash: str = "",
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    eval_every: int = 0,
    monitor: str = "loss",
    mode: Literal["min", "max"] = "min",
    log_every: int = 20,
    log: Callable[[Row], None] | None = None,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[TrainState, History]:
    """Trains until `num_steps` updates are done.

    With a `checkpoint_dir`, the newest whole checkpoint in it is resumed first, and the
    final numbers are those of a run that was never stopped. Ctrl-C, SIGTERM and `stop`
    save after the step in progress.

    Args:
        runner: The compiled step.
        state: As `init_state` makes it; its arrays are copied, not donated.
        loader: Of at least as many batches as there are steps.
        frozen: The stage's frozen variables.
        upstream: Earlier stages' variables, by name.
        num_steps: Updates in all, those before a resume included.
        checkpoint_dir: Where to save; None saves nothing.
        save_every_s: Seconds between checkpoints; one is also written at the end.
        config_hash: Of the settings that change the numbers; a checkpoint with another
            is refused.
        evaluate: `state -> metrics`; it must not keep the state, which is donated.
        eval_every: Steps between evaluations; one also follows the last step.
        monitor: The metric of `evaluate` that chooses the best parameters.
        mode: Whether the smallest or the largest is best.
        log_every: Steps a row of metrics spans.
        log: Receives every row. After a resume, rows of steps since the checkpoint
            come a second time.
        progress: Receives the number of updates done, after every step.
        stop: Asked after every step.

    Returns:
        The last state and the history.

    Raises:
        Interrupted: If it was stopped; the message says how to resume.
        InputError: If the loss stops being finite, the batches run out, or the
            checkpoint is of another run.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode is 'min' or 'max'; got {mode!r}.")
    state = runner.place(copy_arrays(state))
    frozen, upstream = runner.place((frozen, dict(upstream)))
    run = _Run(state, keeps_best=evaluate is not None, config_hash=config_hash)
    if checkpoint_dir is not None:
        run.restore(checkpoint_dir, loader)
    saved_step, saved_at = run.step, time.monotonic()

    def save() -> None:
        nonlocal saved_step, saved_at
        if checkpoint_dir is not None and run.step != saved_step:
            run.fetch(checkpoint_dir)
            run.save(checkpoint_dir, loader)
            saved_step, saved_at = run.step, time.monotonic()

    with _signals() as signalled:
        while run.step < num_steps:
            batch = next(loader, None)  # type: ignore[call-overload]
            if batch is None:
                raise InputError(
                    f"Batches ran out at step {run.step} of {num_steps}: give the "
                    "loader at least as many steps or epochs."
                )
            run.advance(*runner.step(run.state, frozen, upstream, runner.put(batch)))
            last = run.step == num_steps
            if run.step % log_every == 0 or last:
                run.emit(run.mean_row(checkpoint_dir), log)
            if evaluate and (last or (eval_every and run.step % eval_every == 0)):
                run.fetch(checkpoint_dir)
                values = {k: float(v) for k, v in evaluate(run.state).items()}
                run.judge(values, monitor, mode)
                run.emit({"step": run.step, **values}, log)
            if progress is not None:
                progress(run.step)
            if last or time.monotonic() - saved_at > save_every_s:
                save()
            if signalled() or (stop is not None and stop()):
                save()
                raise Interrupted(_how_to_resume(run.step, num_steps, checkpoint_dir))
    return run.state, run.history()


class _Run:
    """The loop's own state: everything a checkpoint has to hold."""

    def __init__(self, state: TrainState, *, keeps_best: bool, config_hash: str):
        self.state = state
        self.step = int(state.step)
        self.best = copy_arrays((state.params, state.state)) if keeps_best else None
        self.best_step = 0
        self.best_value: float | None = None
        self.resumed_from = 0
        self.rows: list[Row] = []
        self.recent: list[Row] = []  # of the row in progress
        self.pending: list[tuple[int, Any]] = []  # metrics still on the device
        self.config_hash = config_hash

    def advance(self, state: TrainState, metrics: Any) -> None:
        """Takes in a step's results, without waiting for them."""
        self.state = state
        self.step += 1
        self.pending.append((self.step, metrics))
        if len(self.pending) > 2:
            # Two steps ahead keeps a device busy; more would hold more batches.
            jax.block_until_ready(self.pending[-3][1])

    def fetch(self, checkpoint_dir: str | Path | None) -> None:
        """Brings pending metrics to the host, and checks that they are finite."""
        for step, metrics in self.pending:
            row = {k: float(v) for k, v in jax.device_get(metrics).items()}
            if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
                raise InputError(_not_finite(step, row, checkpoint_dir))
            self.recent.append(row)
        self.pending = []

    def mean_row(self, checkpoint_dir: str | Path | None) -> Row:
        """Averages the metrics since the last row."""
        self.fetch(checkpoint_dir)
        rows, self.recent = self.recent, []
        means = {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}
        return {"step": self.step, **means}

    def emit(self, row: Row, log: Callable[[Row], None] | None) -> None:
        """Keeps a row and hands it on."""
        self.rows.append(row)
        if log is not None:
            log(row)

    def judge(self, values: Row, monitor: str, mode: str) -> None:
        """Keeps a copy of the parameters if they are the best so far."""
        if monitor not in values:
            raise ValueError(f"No metric {monitor!r}; there are {', '.join(values)}.")
        value = values[monitor]
        if not math.isfinite(value):
            raise InputError(
                f"The validation metric {monitor!r} is {value} at step {self.step}: "
                "the validation set may hold one class only."
            )
        sign = 1 if mode == "max" else -1
        if self.best_value is None or sign * value > sign * self.best_value:
            self.best = copy_arrays((self.state.params, self.state.state))
            self.best_step, self.best_value = self.step, value

    def history(self) -> History:
        """Returns what is left when the loop has ended."""
        best = self.state
        if self.best is not None:
            best = dataclasses.replace(best, params=self.best[0], state=self.best[1])
        return History(
            self.rows, best, self.best_step, self.best_value, self.resumed_from
        )

    def save(self, folder: str | Path, loader: Loader) -> None:
        """Writes a checkpoint."""
        meta = {
            "config_hash": self.config_hash,
            "loader": loader.get_state(),
            "best_step": self.best_step,
            "best_value": self.best_value,
            "rows": self.rows,
            "recent": self.recent,
        }
        checkpoint.save(folder, self.step, (self.state, self.best), meta)

    def restore(self, folder: str | Path, loader: Loader) -> None:
        """Goes to the newest whole checkpoint, if there is one."""
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
        self.step = self.resumed_from = int(self.state.step)
        self.best_step, self.best_value = meta["best_step"], meta["best_value"]
        self.rows, self.recent = meta["rows"], meta["recent"]
        loader.set_state(meta["loader"])


def _not_finite(step: int, row: Row, folder: str | Path | None) -> str:
    raw = {k.partition("/")[2]: v for k, v in row.items() if k.startswith("raw/")}
    bad = [name for name, value in raw.items() if not math.isfinite(value)]
    where = f"in {', '.join(bad)}" if bad else "in the gradient"
    kept = f"; the last good checkpoint is in {folder}" if folder else ""
    return (
        f"The loss is not finite at step {step} ({where}){kept}. Look for NaN in the "
        "data, or lower optim.learning_rate."
    )


def _how_to_resume(step: int, num_steps: int, folder: str | Path | None) -> str:
    if folder is None:
        return f"Stopped at step {step} of {num_steps}; nothing was saved."
    return (
        f"Stopped at step {step} of {num_steps}, saved in {folder}. Run the same "
        "command again to resume."
    )


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a flag; the second acts as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    caught: list[int] = []
    before: dict[int, Any] = {
        number: signal.getsignal(number) or signal.SIG_DFL
        for number in (signal.SIGINT, signal.SIGTERM)
    }

    def handle(number: int, frame: Any) -> None:
        del frame
        caught.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
