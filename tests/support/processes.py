"""Programs that tests start, watch and stop."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def running(command, **options):
    """Starts a program and leaves nothing of it running, whatever the test does."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def launch(folder, devices, cases, num, module="tests.support.toy_runners", between=()):
    """Trains in `num` processes that share the devices."""
    port = str(free_port())
    command = [sys.executable, "-m", module, str(devices), str(folder), *between]
    command += [",".join(cases), *([port] if num > 1 else [])]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                running(
                    command + ([str(i), str(num)] if num > 1 else []),
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            for i in range(num)
        ]
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
