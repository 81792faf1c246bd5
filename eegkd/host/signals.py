"""Ctrl-C and SIGTERM: work that can save does so, and no request to stop is lost."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
# Python drops an exception that a handler raises inside a destructor: the request
# stays here until a command ends, for the next work that watches.
_asked: list[int] = []


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Makes SIGTERM end a command as Ctrl-C does: by a KeyboardInterrupt."""

    def handle(number: int, frame: Any) -> None:
        del frame
        _asked.append(number)
        raise KeyboardInterrupt

    with _handlers(handle):
        try:
            yield
        finally:
            _asked.clear()


@contextlib.contextmanager
def end_unread() -> Iterator[None]:
    """Ends a command quietly whose output nobody reads any more, as after `| head`.

    Raises:
        SystemExit: 141, a shell's code for a program that SIGPIPE ended.
    """
    try:
        yield
    except BrokenPipeError:
        if os.name == "nt":
            raise  # Windows has another error for it, and no poll.
        output = sys.stdout.fileno()
        poll = select.poll()
        poll.register(output, 0)
        if not poll.poll(0):
            raise  # another pipe
        # The rest of the output goes nowhere, or Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
        raise SystemExit(141) from None


@contextlib.contextmanager
def watch_signals() -> Iterator[Callable[[], bool]]:
    """Records the first Ctrl-C or SIGTERM as a flag; the second acts as usual.

    A request that arrives with the last of the work, and so is never asked about, acts
    at the end.
    """
    caught, asked = list(_asked), []

    def handle(number: int, frame: Any) -> None:
        del frame
        caught.append(number)
        signal.signal(number, before[number])

    def signalled() -> bool:
        if caught:
            asked.append(True)
        return bool(caught)

    with _handlers(handle) as before:
        yield signalled
    if caught and not asked and before:
        signal.raise_signal(caught[0])


@contextlib.contextmanager
def _handlers(handle: Callable[[int, Any], None]) -> Iterator[dict[int, Any]]:
    """Handles both signals, in the main thread alone; yields the previous handlers."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in _NUMBERS:
            before[number] = signal.getsignal(number) or signal.SIG_DFL
            signal.signal(number, handle)
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
