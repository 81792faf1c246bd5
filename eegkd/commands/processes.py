"""One command as several processes of this machine, or as one of a cluster's."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from eegkd.config import TrainConfig
from eegkd.errors import InputError, Interrupted
from eegkd.host.process import force_cpu_devices, recompile_across_cpus

Children = list[subprocess.Popen[bytes]]
_LAUNCHED = "EEGKD_LAUNCHED"
# Processes that stop together end within moments of each other.
_GRACE_S = 15.0
_POLL_S = 0.1


def launch(args: Sequence[str], config: TrainConfig) -> None:
    """Runs `eegkd ARGS` in several processes and waits for all of them.

    Only the first one's output is shown. Ctrl-C and SIGTERM are handed on. Where one
    process fails, the others are stopped: alone they would wait for it for ever.

    Raises:
        InputError: If one of them refused its input.
        Interrupted: If they were stopped, or one was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, f"{i}.log") for i in range(config.processes)]
        port, children = _free_port(), []
        try:
            for index, log in enumerate(logs):
                children.append(_start(args, config, index, port, log))
            with _handed_on(children):
                failed = _wait(children)
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                child.wait()
                if child.stdin is not None:
                    child.stdin.close()
        if failed is not None:
            _fail(failed, children[failed].returncode, logs)


def join(config: TrainConfig, coordinator: str | None, process_id: str | None) -> None:
    """Joins this process to the others, if the options ask for several.

    Raises:
        InputError: If `process_id` is no number, or the others cannot be reached.
    """
    force_cpu_devices(config.devices // config.processes)
    if config.processes == 1:
        if coordinator is not None:
            raise InputError("--coordinator needs --processes, of all machines.")
        recompile_across_cpus(max(config.devices, config.processes))
        return
    from eegkd.train.distributed import AUTO, connect

    if process_id is not None and not process_id.isdigit():
        raise InputError(f"--process_id is a number from 0; got {process_id}.")
    if os.environ.get(_LAUNCHED):
        threading.Thread(target=_follow_parent, daemon=True).start()
    number = None if process_id is None else int(process_id)
    connect(config.processes, coordinator or AUTO, number)
    recompile_across_cpus(max(config.devices, config.processes))


def _start(
    args: Sequence[str], config: TrainConfig, index: int, port: int, log: Path
) -> subprocess.Popen[bytes]:
    each = max(1, config.devices // config.processes)
    mine = range(index * each, (index + 1) * each)
    environment = os.environ | {
        _LAUNCHED: "1",
        # Of GPUs; processes must not share one. JAX reads it, and a CPU ignores it.
        "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, mine)),
    }
    command = [sys.executable, "-m", "eegkd.cli", *args]
    command += ["--coordinator", f"localhost:{port}", "--process_id", str(index)]
    with log.open("wb") as file:
        output = None if index == 0 else file
        return subprocess.Popen(
            command,
            env=environment,
            # Held open: its end tells a child that this process is gone.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,
        )


def _wait(children: Children) -> int | None:
    """Waits for all; returns the index of the first that failed by itself."""
    while True:
        codes = [child.poll() for child in children]
        bad = [i for i, code in enumerate(codes) if code]
        if bad:
            break
        if all(code == 0 for code in codes):
            return None
        time.sleep(_POLL_S)
    end = time.monotonic() + _GRACE_S
    while time.monotonic() < end and any(c.poll() is None for c in children):
        time.sleep(_POLL_S)
    # A process that lost its partner also fails, a moment later.
    return min(bad, key=lambda i: (codes[i] or 0) > 0)


def _fail(index: int, code: int, logs: Sequence[Path]) -> None:
    lines = logs[index].read_text(errors="replace").strip().splitlines()
    said = f" It said: {lines[-1]}" if lines and code > 0 else ""
    who = f"Process {index} of {len(logs)}"
    if code == 2:
        raise InputError(f"{who} refused its input.{said}")
    if code == 130:
        raise Interrupted(f"All {len(logs)} processes have stopped.")
    how = f"was killed by signal {-code}" if code < 0 else f"failed with code {code}"
    raise Interrupted(
        f"{who} {how}, and the others were stopped.{said} The same command goes on "
        "from the last checkpoint."
    )


@contextlib.contextmanager
def _handed_on(children: Children) -> Iterator[None]:
    """Forwards Ctrl-C and SIGTERM to the children, and keeps waiting for them."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        del frame
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, hand_on) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow_parent() -> None:
    """Stops this process, saving first, when its parent is gone."""
    # Not `sys.stdin`: a thread that waits there holds its lock, on which Python aborts
    # when it exits.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]
