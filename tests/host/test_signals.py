"""Requests to stop that come at a bad moment."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from eegkd.host.signals import end_unread, terminable, watch_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_came_with_the_last_of_the_work_acts_after_it(number):
    before = signal.getsignal(number)
    done = []

    def work():
        with watch_signals() as signalled:
            assert not signalled()
            signal.raise_signal(number)
            done.append("work")
        done.append("more")

    with terminable(), pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["work"]
    assert signal.getsignal(number) is before


def test_one_that_the_work_knows_of_is_its_own():
    with terminable(), watch_signals() as signalled:
        signal.raise_signal(signal.SIGTERM)
        assert signalled()


def test_the_second_one_acts_at_once():
    with terminable(), watch_signals() as signalled:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert signalled()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_python_dropped_stops_the_next_work(number):
    class Dropping:
        def __del__(self):
            signal.raise_signal(number)

    with terminable():
        dropping = Dropping()
        del dropping  # Python says "Exception ignored in" and goes on.
        with watch_signals() as signalled:
            assert signalled()
    with terminable(), watch_signals() as signalled:
        assert not signalled()


def test_other_threads_leave_handlers_alone():
    before, found = signal.getsignal(signal.SIGTERM), []

    def work():
        with terminable(), watch_signals() as signalled:
            found.append((signalled(), signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, True)]


UNREAD = """
from eegkd.host.signals import end_unread
with end_unread():
    for number in range(100000):
        print("line", number)
"""


def test_a_command_whose_reader_has_gone_ends_in_silence():
    command = [sys.executable, "-c", UNREAD]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_another_pipe_that_breaks_is_an_error():
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError), end_unread():
        os.write(write, b"to a worker that has gone")
    os.close(write)
