"""Work on scans by several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from medgen.errors import OutOfMemoryError, Problem, reason

Job = TypeVar("Job")
Result = TypeVar("Result")

BYTES_PER_WORKER = 8 << 20
"""Less than this, and starting another process takes longer than the work."""
LONGEST = 20.0
"""Seconds to wait until the system tells how a process ended."""
GRACE = 5.0
"""Seconds in which the pool says that it broke, once one of its processes has ended."""
SCARCE = (signal.SIGKILL, signal.SIGBUS)
"""What the system sends where there is no memory left, or no shared memory."""
LESS = "Set data.workers lower, or ask for more memory, on a cluster with --mem."
ALONE = "Set data.workers=1 to see what it cannot do."


def count_cores() -> int:
    """Return the cores this process may use; on a cluster fewer than there are."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def count_workers(paths: Iterable[Path], jobs: int, asked: int) -> int:
    """Return how many processes pay for files of this size, or those asked for; one a job at most."""
    size = sum(path.stat().st_size for path in paths if path.is_file())
    return max(1, min(jobs, asked or min(count_cores(), 1 + size // BYTES_PER_WORKER)))


@contextlib.contextmanager
def results(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Iterator[Result]]:
    """Yield what `work` gives for each job, in order and ahead, by workers; one is this process.

    Raises OutOfMemoryError if a worker is killed or no shared memory is left for locks.
    """
    if workers == 1:
        yield map(work, jobs)
        return
    context = _Context()
    try:
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start)
    except OSError as error:
        raise OutOfMemoryError(
            Problem("/dev/shm", reason(error), "Free some of it, or set data.workers=1")
        ) from error
    watch = Watch(context.made, workers)
    try:
        yield _given(_submitted(pool, work, jobs, watch), watch)
    except BrokenProcessPool:
        # the pool forgets the one that was being started as it broke, and waits for it
        for each in watch.started():
            each.terminate()
        raise OutOfMemoryError(Problem("data.workers", watch.told())) from None
    except MemoryError:
        what = f"one of {workers} processes that read the scans could not get more memory"
        raise OutOfMemoryError(Problem("data.workers", what, LESS)) from None
    finally:
        watch.ended.set()
        pool.shutdown(cancel_futures=True)


def _submitted(
    pool: ProcessPoolExecutor, work: Callable[[Job], Result], jobs: Sequence[Job], watch: Watch
) -> list[Future[Result]]:
    """Give the pool all jobs, upon which it starts its processes."""
    try:
        return [pool.submit(work, job) for job in jobs]
    except (OSError, ValueError) as error:
        # the pool closes what the next one needs to start: before it is asked for, or after that
        if watch.one_is_gone():
            raise BrokenProcessPool from error
        if isinstance(error, ValueError):
            raise
        what = f"a process to read the scans could not be started ({error.strerror or error})"
        raise OutOfMemoryError(Problem("data.workers", what, LESS)) from error


def _given(futures: list[Future[Result]], watch: Watch) -> Iterator[Result]:
    """Yield the results in order, each kept only until it is given.

    A process that ends as another is started can make the pool lose a job; then nobody else says
    that it broke.
    """
    futures.reverse()
    while futures:
        future = futures.pop()
        while not future.done():
            one_is_gone = watch.one_is_gone()
            wait([future], GRACE)
            if one_is_gone and not future.done():
                raise BrokenProcessPool
        yield future.result()


class _Context(SpawnContext):
    """Keeps the processes that it makes, also those that end before their children are asked for.

    They are spawned: a fork would copy the locks that other threads hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[BaseProcess] = []

    def Process(self, *given: Any, **named: Any) -> SpawnProcess:  # type: ignore[override]
        process = SpawnProcess(*given, **named)
        self.made.append(process)
        return process


class Watch:
    """Samples the memory of some processes, because the system forgets a process that has ended.

    Figures of ended ones do not help: a process's peak begins with that of its parent.
    """

    def __init__(self, workers: list[BaseProcess], count: int) -> None:
        """workers: filled as they are started. count: how many there will be."""
        self.workers, self.count = workers, count
        self.first: BaseProcess | None = None
        self.held: dict[int, int] = {}
        self.ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def started(self) -> list[BaseProcess]:
        return [each for each in self.workers if each.pid]

    def one_is_gone(self) -> bool:
        """Return whether one has ended, by what the pool looks at too: `exitcode` is None for a moment
        while another thread asks for it.
        """
        return bool(connection.wait([each.sentinel for each in self.started()], timeout=0))

    def told(self) -> str:
        """Return which of them ended first and how, and what to do."""
        each = self._culprit()
        code, held = each.exitcode, self.held.get(each.pid or 0)
        who = f"process {each.pid}, one of {self.count} that read the scans,"
        memory = (
            f" while it held {held / 1e9:.3g} GB"
            if held
            else " (how much memory it held is not known)"
        )
        if code is None or code >= 0:
            return f"{who} ended by itself with exit code {code}{memory}. {ALONE}"
        killed = f"{who} was killed by {_name(-code)}{memory}"
        return (
            f"{killed}, most likely for lack of memory. {LESS}"
            if -code in SCARCE
            else f"{killed}. {ALONE}"
        )

    def _culprit(self) -> BaseProcess:
        """Return the process that a signal killed or that failed; the pool ends others by SIGTERM."""
        limit, found = time.monotonic() + LONGEST, self.started()
        while time.monotonic() < limit:
            found = sorted(self.started(), key=_guilt)
            if _guilt(found[0]) == 0 or all(each.exitcode is not None for each in found):
                break
            time.sleep(
                0.01
            )  # not `join`, which comes back too early if a thread of the pool waits for the same one
        return found[0] if _guilt(found[0]) < 2 else self.first or found[0]

    def _look(self) -> None:
        while not self.ended.wait(0.05):
            for each in self.started():
                if self.first is None and not each.is_alive():
                    self.first = each
                self._measure(each.pid or 0)

    def _measure(self, pid: int) -> None:
        with contextlib.suppress(OSError):  # it has ended, or this is no Linux
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            self.held[pid] = pages * os.sysconf("SC_PAGE_SIZE") or self.held.get(pid, 0)


def _guilt(process: BaseProcess) -> int:
    """Return 0 if a signal not of the pool killed it, 1 if it ended by itself, else 2."""
    code = process.exitcode
    return 2 if code in (None, -signal.SIGTERM) else int(code >= 0)


def _name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent alone to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker with its parent, which, if killed, would leave it waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
