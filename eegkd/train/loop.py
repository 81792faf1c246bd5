"""The training loop: batches in, the state out; resumable at any step."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from eegkd.errors import InputError, Interrupted
from eegkd.host.signals import watch_signals
from eegkd.train.distributed import Votes
from eegkd.train.loop_state import History, Loader, LoopState, Row
from eegkd.train.parallel import Runner
from eegkd.train.state import TrainState, copy_arrays
from eegkd.typing import Batch, PyTree, Variables

__all__ = ["History", "Loader", "LoopOptions", "Row", "run_loop", "train"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """Options of the loop: when it saves, evaluates, logs and stops.

    Attributes:
        checkpoint_dir: Folder of the checkpoints; None saves nothing.
        save_every_s: Seconds between checkpoints; one is also written at the end.
        config_hash: Hash of the settings that change the numbers; a checkpoint with
            another is refused.
        eval_every: Steps between evaluations; one also follows the last step.
        monitor: Metric of the evaluation that chooses the best parameters.
        mode: Best value: the smallest or the largest.
        tie: Metric that decides, by the same mode, where the monitored one is equal or
            undefined; "" is none.
        log_every: Steps that one row of metrics spans.
        stop: Called after every step; True saves and interrupts.

    Raises:
        ValueError: If `mode` is neither "min" nor "max".
    """

    checkpoint_dir: str | Path | None = None
    save_every_s: float = 60.0
    config_hash: str = ""
    eval_every: int = 0
    monitor: str = "loss"
    mode: Literal["min", "max"] = "min"
    tie: str = ""
    log_every: int = 20
    stop: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        """Checks the mode."""
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max'; got {self.mode!r}.")


ONCE = LoopOptions()
"""Save nothing, and evaluate after the last step alone."""


def train(
    runner: Runner,
    state: TrainState,
    loader: Loader,
    *,
    frozen: PyTree,
    upstream: Mapping[str, Variables],
    num_steps: int,
    options: LoopOptions = ONCE,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
    log: Callable[[Row], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[TrainState, History]:
    """Trains until `num_steps` updates are done.

    With a `checkpoint_dir`, the newest whole checkpoint in it is resumed first, and the
    final numbers are those of a run that was never stopped. Ctrl-C, SIGTERM and `stop`
    save after the step in progress.

    Args:
        runner: Runner of the compiled step.
        state: Result of `init_state`; its arrays are copied, not donated.
        loader: At least as many batches as there are steps.
        frozen: The stage's frozen variables.
        upstream: Earlier stages' variables, by name.
        num_steps: Updates in all, those before a resume included.
        options: Options of the loop.
        evaluate: `state -> metrics`; it must not keep the state, which is donated.
        log: Receives every row. After a resume, rows of steps since the checkpoint
            come a second time.
        progress: Receives the number of updates done, after every step.

    Returns:
        The last state and the history.

    Raises:
        Interrupted: If it was stopped; the message says how to resume.
        InputError: If the loss stops being finite, the batches run out, or the
            checkpoint is of another run.
    """
    state = runner.place(copy_arrays(state))
    frozen, upstream = runner.place((frozen, dict(upstream)))
    loop = LoopState(
        state, keeps_best=evaluate is not None, config_hash=options.config_hash
    )
    run_loop(
        loop,
        lambda state, batch: runner.step(state, frozen, upstream, runner.put(batch)),
        loader,
        num_steps=num_steps,
        options=options,
        evaluate=evaluate and (lambda state: [evaluate(state)]),
        log=log and (lambda _, row: log(row)),
        progress=progress,
    )
    return loop.state, loop.histories()[0]


def run_loop(
    loop: LoopState,
    step: Callable[[TrainState, Batch], tuple[TrainState, Any]],
    loader: Loader,
    *,
    num_steps: int,
    options: LoopOptions = ONCE,
    evaluate: Callable[[TrainState], Sequence[Mapping[str, float]]] | None = None,
    log: Callable[[int, Row], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Advances the loop until `num_steps` updates are done, for one member or many.

    The arguments are those of `train`, but `evaluate` returns one mapping per member,
    and `log` receives a member's number and its row.

    Raises:
        Interrupted: As `train` does.
        InputError: As `train` does.
    """
    checkpoint_dir = options.checkpoint_dir
    if checkpoint_dir is not None:
        loop.restore(checkpoint_dir, loader)
    saved_step, saved_at = loop.step, time.monotonic()
    votes = Votes()

    def save() -> None:
        nonlocal saved_step, saved_at
        if checkpoint_dir is not None and loop.step != saved_step:
            loop.fetch(checkpoint_dir)
            loop.save(checkpoint_dir, loader)
            saved_step, saved_at = loop.step, time.monotonic()

    def emit(rows: Sequence[Row]) -> None:
        for i, (track, row) in enumerate(zip(loop.tracks, rows, strict=True)):
            track.rows.append(row)
            if log is not None:
                log(i, row)

    with watch_signals() as signalled:
        while loop.step < num_steps:
            batch = next(loader, None)  # type: ignore[call-overload]
            if batch is None:
                raise InputError(
                    f"Batches ran out at step {loop.step} of {num_steps}: give the "
                    "loader at least as many steps or epochs."
                )
            loop.advance(*step(loop.state, batch))
            last = loop.step == num_steps
            if loop.step % options.log_every == 0 or last:
                emit(loop.mean_rows(checkpoint_dir))
            every = options.eval_every
            if evaluate and (last or (every and loop.step % every == 0)):
                loop.fetch(checkpoint_dir)
                found = evaluate(loop.state)
                values = [{k: float(v) for k, v in row.items()} for row in found]
                loop.judge(values, options.monitor, options.mode, options.tie)
                emit([{"step": loop.step, **row} for row in values])
            if progress is not None:
                progress(loop.step)
            due, stopped = votes(
                time.monotonic() - saved_at > options.save_every_s,
                signalled() or (options.stop is not None and options.stop()),
            )
            if last or due or stopped:
                save()
                votes.clear()
            if stopped:
                raise Interrupted(_how_to_resume(loop.step, num_steps, checkpoint_dir))


def _how_to_resume(step: int, num_steps: int, folder: str | Path | None) -> str:
    if folder is None:
        return f"Stopped at step {step} of {num_steps}; nothing was saved."
    return (
        f"Stopped at step {step} of {num_steps}, saved in {folder}. Run the same "
        "command again to resume."
    )
