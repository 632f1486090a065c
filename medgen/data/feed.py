"""From the slice store to batches on the device, in an order that is a function of the position alone."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from medgen import seeds
from medgen.data.store import SliceStore
from medgen.kinds import Batch, Mode


class Feed:
    """Samples of one split. Sample n of a run is `permutation(n // size)[n % size]`, so batches cross epochs.

    With `mode.pooled` each image of a slice is a sample of its own.
    """

    def __init__(self, store: SliceStore, mode: Mode, split: str, seed: int = 0):
        self.store, self.mode, self.seed = store, mode, seed
        self.rows = store.select(split)
        self.views = len(mode.images) if mode.pooled else 1
        self.size = len(self.rows) * self.views
        self._order = lru_cache(maxsize=4)(lambda epoch: seeds.permutation(seed, epoch, self.size).numpy())
        self._ahead: tuple[tuple[int, int], Future[Batch]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")

    def read(self, samples: np.ndarray) -> Batch:
        """The samples with these numbers in 0..size-1, as float16 on the CPU."""
        rows, view = self.rows[samples // self.views], samples % self.views
        image = self._images(rows, view)
        if self.mode.condition:
            condition = torch.from_numpy(self.store.read(rows, self.mode.condition))
        else:
            condition = image.new_empty((len(rows), 0, *image.shape[2:]))
        return Batch(image, condition)

    def at(self, position: int, count: int) -> Batch:
        """The batch of `count` samples that starts at `position` of the run; the next is read ahead meanwhile."""
        ahead, self._ahead = self._ahead, None
        batch = ahead[1].result() if ahead and ahead[0] == (position, count) else self._shuffled(position, count)
        after = position + count
        self._ahead = (after, count), self._thread.submit(self._shuffled, after, count)
        return batch

    def slices(self, position: int, count: int) -> list[int]:
        """The rows in the store of the samples that `at` gives."""
        rows: list[int] = self.rows[self._numbers(position, count) // self.views].tolist()
        return rows

    def close(self) -> None:
        """Let the reading thread end."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _shuffled(self, position: int, count: int) -> Batch:
        batch = self.read(self._numbers(position, count))
        return Batch(*(part.pin_memory() for part in batch)) if torch.cuda.is_available() else batch

    def _numbers(self, position: int, count: int) -> np.ndarray:
        return np.asarray([self._order(n // self.size)[n % self.size] for n in range(position, position + count)])

    def _images(self, rows: np.ndarray, view: np.ndarray) -> torch.Tensor:
        images = self.store.read(rows, self.mode.images)
        if self.mode.pooled:
            images = images[np.arange(len(rows)), view][:, None]
        return torch.from_numpy(np.ascontiguousarray(images))
