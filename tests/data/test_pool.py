"""Of a process that reads scans and ends, the pid, how it ended and its memory are told, whenever that was.

Covers: medgen.data.store.processes.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import time
from concurrent.futures import process
from multiprocessing import reduction
from multiprocessing.context import SpawnProcess

import pytest

from medgen.data.store import processes
from medgen.errors import OutOfMemoryError

pytestmark = pytest.mark.usefixtures("no_hang")
UNTIL_KILLED = (time.sleep, [600.0] * 4, 2)
LESS = r"Set data\.workers lower, or ask for more memory, on a cluster with --mem\."
ALONE = r"Set data\.workers=1 to see what it cannot do\."


def told(work, jobs, workers):
    """The message with which the pool ends."""
    with (
        pytest.raises(OutOfMemoryError) as raised,
        processes.results(work, jobs, workers) as results,
    ):
        list(results)
    return str(raised.value)


@pytest.fixture
def started(monkeypatch):
    """The pids of processes as they are started; each is killed by `signals` at once, if there is one left."""
    pids, start = Pids(), SpawnProcess.start

    def starting(self):
        start(self)
        pids.append(self.pid)
        if pids.signals:
            os.kill(self.pid, pids.signals.pop(0))

    monkeypatch.setattr(SpawnProcess, "start", starting)
    return pids


class Pids(list):
    """With the signals to send to those that come next."""

    def __init__(self):
        super().__init__()
        self.signals = []


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGRTMIN + 1]
)
def test_a_process_that_is_killed_as_it_starts_is_named_with_its_signal_though_nobody_had_seen_it(
    number, started, monkeypatch
):
    """Issue 10, point 0: before its memory was looked at, and before anybody asked for the children."""
    monkeypatch.setattr(processes.Watch, "_measure", lambda *_: None)
    started.signals.append(number)
    said = told(*UNTIL_KILLED)
    who = f"data.workers: process {started[0]}, one of 2 that read the scans, was killed by {processes._name(number)}"
    then = (
        f", most likely for lack of memory. {LESS}" if number == signal.SIGKILL else rf"\. {ALONE}"
    )
    assert re.fullmatch(rf"{who} \(how much memory it held is not known\){then}", said), said


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_process_that_is_started_as_the_pool_breaks_is_ended_too(when, started, monkeypatch):
    """The pool has already told all it knew of to end: it waits for this one while it works, or cannot start it.

    before, during, after: whether the pool breaks before the process has started, once it has been
    given the pipes of the pool, which are closed then, or after it has started.
    """
    broken, start, terminate = threading.Event(), SpawnProcess.start, SpawnProcess.terminate
    dump, closing = reduction.dump, []

    def starting(self):
        second = bool(started)
        if second and when == "before":
            pool_breaks()
        start(self)
        if second and when == "after":
            pool_breaks()

    def dumping(given, *others):
        dump(given, *others)
        if started and when == "during" and isinstance(given, SpawnProcess):
            lower = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]
            pool_breaks()  # and what is opened next gets the number of a pipe that was closed
            closing.extend(lower)

    def pool_breaks():
        os.kill(started[0], signal.SIGKILL)
        broken.wait(10)
        time.sleep(
            0.2
        )  # until it has told all and closed all, which nothing shows; a longer time changes no result

    def terminating(self):
        terminate(self)
        broken.set()

    monkeypatch.setattr(SpawnProcess, "start", starting)
    monkeypatch.setattr(SpawnProcess, "terminate", terminating)
    monkeypatch.setattr(reduction, "dump", dumping)
    said = told(*UNTIL_KILLED)
    for each in closing:
        os.close(each)
    assert f"process {started[0]}, one of 2 that read the scans, was killed by SIGKILL" in said


def test_a_job_that_a_broken_pool_forgets_is_not_waited_for(started, monkeypatch):
    monkeypatch.setattr(process._ExecutorManagerThread, "terminate_broken", lambda *_: None)
    monkeypatch.setattr(processes, "GRACE", 0.05)
    started.signals.append(signal.SIGKILL)
    assert re.search(r"one of 2 .* SIGKILL", told(*UNTIL_KILLED))


def test_the_memory_that_a_process_held_when_it_was_looked_at_is_told(started, monkeypatch):
    measure, killed = processes.Watch._measure, []

    def looking(self, pid):
        measure(self, pid)
        if self.held.get(pid) and not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(processes.Watch, "_measure", looking)
    said = told(*UNTIL_KILLED)
    found = re.fullmatch(
        rf"data\.workers: process {killed[0]}, one of 2 that read the scans, was killed by SIGKILL while it held "
        rf"(\S+) GB, most likely for lack of memory\. {LESS}", said,
    )  # fmt: skip
    assert found, said
    assert 0 < float(found[1]) < 1000


def test_a_process_that_kills_itself_at_work_is_named(started):
    """Both do: whichever the system ended first."""
    said = told(signal.raise_signal, [signal.SIGKILL] * 2, 2)
    assert re.search(
        rf"process ({'|'.join(map(str, started))}), one of 2 .* was killed by SIGKILL", said
    ), said


def test_a_process_that_ends_by_itself_is_no_lack_of_memory(started):
    said = told(os._exit, [3, 3], 2)
    who = rf"process ({'|'.join(map(str, started))}), one of 2 that read the scans, ended by itself with exit code 3"
    assert re.fullmatch(rf"data\.workers: {who}.*\. {ALONE}", said), said
    assert "lack of memory" not in said


def test_a_process_that_gets_no_memory_is_told_at_once():
    said = told(bytes, [1 << 62, 1], 2)
    assert re.fullmatch(
        rf"data\.workers: one of 2 processes .* could not get more memory\. {LESS}", said
    ), said


def test_what_work_gives_comes_in_the_order_of_the_jobs():
    with processes.results(abs, [-3, 2, -1], 2) as results:
        assert list(results) == [3, 2, 1]


def test_a_process_that_cannot_be_started_is_told(monkeypatch):
    def refused(_):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(SpawnProcess, "start", refused)
    what = rf"a process to read the scans could not be started \({os.strerror(errno.EAGAIN)}\)"
    assert re.fullmatch(rf"data\.workers: {what}\. {LESS}", told(*UNTIL_KILLED))
