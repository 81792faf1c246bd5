import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from eegkd.commands import processes
from eegkd.commands.distill import _in_long
from eegkd.config import TrainConfig
from eegkd.errors import InputError, Interrupted

TWO = TrainConfig(processes=2)


@pytest.fixture
def run(monkeypatch):
    """Launches two programs in place of two of this package's."""
    monkeypatch.setattr(processes, "_GRACE_S", 0.5)
    children = []

    def launch(*programs):
        def start(args, config, index, port, log):
            with log.open("wb") as file:
                child = subprocess.Popen(
                    [sys.executable, "-c", programs[index]],
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            children.append(child)
            return child

        monkeypatch.setattr(processes, "_start", start)
        processes.launch([], TWO)

    yield launch
    assert all(child.poll() is not None for child in children)


WAIT = "import time; time.sleep(60)"


def test_all_that_end_well_end_well(run):
    run("pass", "pass")


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        ("print('eegkd: No such file'); exit(2)", InputError, "refused.*No such file"),
        ("raise OSError('odd')", Interrupted, "1 of 2 failed with code 1.*odd"),
        ("import os; os.kill(os.getpid(), 9)", Interrupted, "killed by signal 9"),
    ],
)
def test_one_that_fails_ends_the_others(run, program, error, message):
    start = time.monotonic()
    with pytest.raises(error, match=message):
        run(WAIT, program)
    assert time.monotonic() - start < 50


def test_sigterm_reaches_them_all(run):
    threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    stop = "import signal; signal.signal(15, lambda *_: exit(130)); "
    with pytest.raises(Interrupted, match="All 2 processes have stopped"):
        run(stop + WAIT, stop + WAIT)
    assert signal.getsignal(signal.SIGTERM) is not None


def test_options_of_processes():
    assert _in_long("--devices") == "--train.devices"
    assert _in_long("--runner=mesh") == "--train.runner=mesh"
    assert _in_long("runner") == "runner"
    with pytest.raises(ValueError, match="devices=3 is no multiple"):
        TrainConfig(devices=3, processes=2)
    with pytest.raises(ValueError, match="at least 1"):
        TrainConfig(processes=0)
    with pytest.raises(InputError, match="--coordinator needs --processes"):
        processes.join(TrainConfig(), "localhost:1", "0")
    with pytest.raises(InputError, match="--process_id is a number"):
        processes.join(TWO, "localhost:1", "one")


def test_a_process_that_follows_its_parent_ends_well():
    program = (
        "import threading, time; from eegkd.commands.processes import _follow_parent; "
        "threading.Thread(target=_follow_parent, daemon=True).start(); time.sleep(0.2)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    assert child.wait(60) == 0
    child.stdin.close()


def test_it_stops_when_its_parent_is_gone():
    program = (
        "import time; from eegkd.commands.processes import _follow_parent; "
        "_follow_parent(); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    time.sleep(0.2)
    child.stdin.close()
    assert child.wait(60) == -signal.SIGTERM
