"""Progress of a run: lines, bars, and rows of its log."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from eegkd.pipeline.folder import open_log
from eegkd.train.distributed import is_first

_logger = logging.getLogger(__name__)

Advance = Callable[[int], None]
"""Called with the amount done."""


class Observer(NamedTuple):
    """Receiver of what a run reports.

    Attributes:
        say: Called with a line of text.
        bar: `(what, total) -> context` whose value is called with the amount done.
        advance: `(what, done)`: names what is trained now, and adds updates to the
            run's own bar.
        log: Called with a row of metrics.
    """

    say: Callable[[str], None]
    bar: Callable[[str, int], AbstractContextManager[Advance]]
    advance: Callable[[str, int], None]
    log: Callable[[Mapping[str, Any]], None]


def _discard(row: Mapping[str, Any]) -> None:
    """Discards rows: only the first process writes the log."""
    del row


QUIET = Observer(
    _logger.info,
    lambda what, total: contextlib.nullcontext(lambda done: None),
    lambda what, done: None,
    _discard,
)
"""Shows nothing."""


@contextlib.contextmanager
def show(console: Console, log_file: Path, total: int) -> Iterator[Observer]:
    """Shows a run's progress in a terminal, and writes its log."""
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    file = open_log(log_file) if is_first() else contextlib.nullcontext(_discard)
    with progress, file as log:
        whole = progress.add_task("starting", total=total)

        @contextlib.contextmanager
        def bar(what: str, total: int) -> Iterator[Advance]:
            task = progress.add_task(what, total=total)
            try:
                yield lambda done: progress.update(task, completed=done)
            finally:
                progress.remove_task(task)

        def advance(what: str, done: int) -> None:
            progress.update(whole, description=what, advance=done)

        yield Observer(progress.console.print, bar, advance, log)


def moving(observer: Observer, what: str) -> Advance:
    """Returns a function that moves the run's bar to a number of updates done."""
    before = 0

    def moved(done: int) -> None:
        nonlocal before
        observer.advance(what, done - before)
        before = done

    observer.advance(what, 0)
    return moved
