"""Work on scans by several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from medgen.errors import OutOfMemoryError

Job = TypeVar("Job")
Result = TypeVar("Result")

BYTES_PER_WORKER = 8 << 20
"""Less than this, and starting another process takes longer than the work."""


def count_cores() -> int:
    """The cores this process may use; on a cluster fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_workers(paths: Iterable[Path], jobs: int, asked: int) -> int:
    """As many processes as pay for files of this size, unless so many are asked for; one per job at most."""
    size = sum(path.stat().st_size for path in paths if path.is_file())
    return max(1, min(jobs, asked or min(count_cores(), 1 + size // BYTES_PER_WORKER)))


@contextlib.contextmanager
def results(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Iterator[Result]]:
    """What `work` gives for each job, in order, made ahead by the workers; one is this process itself.

    Raises `OutOfMemoryError` if a worker is killed, or if there is no shared memory for their locks.
    """
    if workers == 1:
        yield map(work, jobs)
        return
    try:
        # A fork would copy the locks that other threads hold.
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start)
    except OSError as error:
        raise OutOfMemoryError(f"/dev/shm: {error.strerror}. Free some of it, or set data.workers=1.") from error
    others, watch = set(multiprocessing.active_children()), Watch()
    try:
        made = pool.map(work, jobs)
        watch.start([each for each in multiprocessing.active_children() if each not in others])
        yield made
    except (BrokenProcessPool, MemoryError):
        raise OutOfMemoryError(
            f"data.workers: {watch.killed()}, most likely for lack of memory. Set data.workers lower, or ask for more "
            "memory, on a cluster with --mem."
        ) from None
    finally:
        watch.ended.set()
        pool.shutdown(cancel_futures=True)


class Watch:
    """Knows how much memory each of some processes held last, which the system tells only of those that live."""

    def __init__(self) -> None:
        self.workers: Sequence[BaseProcess] = []
        self.held: dict[int | None, int] = {}
        self.ended = threading.Event()

    def start(self, workers: Sequence[BaseProcess]) -> None:
        """Look at these from now on."""
        self.workers, self.held = workers, dict.fromkeys((each.pid for each in workers), 0)
        threading.Thread(target=self._look, daemon=True).start()

    def killed(self) -> str:
        """Which of them was killed first; the others are told to end by the pool."""
        for each in self.workers:
            each.join(timeout=5)
            if each.exitcode == -signal.SIGKILL:
                held = f" while it held {self.held[each.pid] / 1e9:.2f} GB" if self.held[each.pid] else ""
                return (
                    f"process {each.pid}, one of {len(self.workers)} that read the scans, was killed by SIGKILL{held}"
                )
        return f"one of the {len(self.workers)} processes that read the scans ended"

    def _look(self) -> None:
        while not self.ended.wait(0.05):
            for each in self.workers:
                with contextlib.suppress(OSError):  # it has ended, or this is no Linux
                    pages = int(Path(f"/proc/{each.pid}/statm").read_text().split()[1])
                    self.held[each.pid] = pages * os.sysconf("SC_PAGE_SIZE") or self.held[each.pid]


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent alone to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed leaves its workers waiting for jobs for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
