"""Work shared by threads, a core each, whose results do not depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from medgen.data.store.processes import count_cores

Work = Callable[[Callable[..., Any], Sequence[Any]], Iterator[Any]]
"""As `map`: calls a function with each item and gives what it returns, in order."""


@contextmanager
def threads() -> Iterator[Work]:
    """Give a `map` that works ahead in a thread for each core.

    torch computes each item in one thread, so that no sum is split differently on another machine.
    """
    before, cores = torch.get_num_threads(), count_cores()
    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def work(function: Callable[..., Any], items: Sequence[Any]) -> Iterator[Any]:
            left = iter(items)
            waiting = [pool.submit(function, item) for item in islice(left, 2 * cores)]
            while waiting:
                yield waiting.pop(0).result()
                waiting += [pool.submit(function, item) for item in islice(left, 1)]

        try:
            yield work
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # after an error nothing else is begun
            torch.set_num_threads(before)
