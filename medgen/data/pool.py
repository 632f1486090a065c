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

    Raises `OutOfMemoryError` if a worker is killed.
    """
    if workers == 1:
        yield map(work, jobs)
        return
    # A fork would copy the locks that other threads hold.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start)
    try:
        yield pool.map(work, jobs)
    except (BrokenProcessPool, MemoryError):
        what = f"one of the {workers} processes that read the scans ended, most likely for lack of memory"
        raise OutOfMemoryError(f"data.workers: {what}. Set data.workers lower.") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent alone to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed leaves its workers waiting for jobs for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
