"""Programs that tests start, watch and stop."""

import contextlib
import subprocess


@contextlib.contextmanager
def running(command, **options):
    """Starts a program and leaves nothing of it running, whatever the test does."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()
