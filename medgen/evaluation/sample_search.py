"""The nearest training sample of each of some others: of slices, and of volumes by their slices.

A volume is looked at in some slices of each plane, evenly through the middle of its head, so that a
flip or a shift leaves them the same slices, and a turn about one axis those of one plane. It is as
like its training volume as these slices are to theirs, on average, in the plane in which that is
most.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from medgen.api.tables import AXES
from medgen.evaluation.head_views import Views, concatenated, views
from medgen.evaluation.heads import boxes_of, heads_of
from medgen.evaluation.nearest import Finder
from medgen.evaluation.planes import shares, taken
from medgen.evaluation.samples import Samples
from medgen.evaluation.threads import Work

Array = np.ndarray[Any, np.dtype[Any]]

BLOCK = {2: 256, 3: 8}
"""Slices, or volumes, that a thread compares at a time."""
QUERIES, MIDDLE = 5, 0.6
"""Slices of each plane by which a volume is looked for, and the share of the head that they lie in."""
MOST = 64
"""Slices of each plane that a training volume is found by."""


class Found(NamedTuple):
    """The nearest of each sample. row: of the training samples, int64. score: likeness, -1 to 1,
    float32. area: px of its head without the rim; of volumes the mean of their slices.
    """

    row: Array
    score: Array
    area: Array


class Search(Protocol):
    """Knows the training samples."""

    def find(self, images: Array) -> Found:
        """Look for at most a block of images, `[n, channel, *space]`."""

    def among(self, rows: Array) -> Found:
        """Look for training samples among those of other persons."""


def search(training: Samples, work: Work) -> Search:
    """Prepare training samples."""
    return (SliceSearch if training.axes == 2 else VolumeSearch)(training, work)


class SliceSearch:
    """Looks for slices as they are."""

    def __init__(self, training: Samples, work: Work):
        starts = range(0, len(training), BLOCK[2])
        parts = work(lambda start: views(training.images[start : start + BLOCK[2]]), starts)
        self.finder = Finder(concatenated([*parts]), torch.from_numpy(training.people))

    def find(self, images: Array) -> Found:
        return self._found(views(images), None)

    def among(self, rows: Array) -> Found:
        mine = torch.from_numpy(rows)
        return self._found(self.finder.references.take(mine), self.finder.people[mine])

    def _found(self, seen: Views, people: torch.Tensor | None) -> Found:
        found = self.finder.find(seen, people)
        return Found(found.row.numpy(), found.score.numpy(), seen.area.numpy())


class VolumeSearch:
    """Looks for volumes by slices of three planes."""

    def __init__(self, training: Samples, work: Work):
        self._training = training
        self._planes = [_Plane(training, axis, work) for axis in range(len(AXES))]

    def find(self, images: Array) -> Found:
        return self._found(images, None)

    def among(self, rows: Array) -> Found:
        return self._found(self._training.images[rows], self._training.people[rows])

    def _found(self, images: Array, people: Array | None) -> Found:
        boxes = boxes_of(heads_of(images))
        planes = [each.find(images, boxes.low, boxes.high, people) for each in self._planes]
        best = np.argmax([each.score for each in planes], axis=0)
        row, score, area = (np.choose(best, each) for each in zip(*planes, strict=True))
        return Found(row, score, area)


class _Plane:
    """Slices of the training volumes across one axis of space."""

    def __init__(self, training: Samples, axis: int, work: Work):
        self._axis, self._count = axis, len(training)
        counts = min(MOST, training.grid.shape[axis])

        def prepared(start: int) -> Views:
            images = training.images[start : start + BLOCK[3]]
            boxes = boxes_of(heads_of(images))
            return views(self._cut(images, boxes.low, boxes.high, shares(counts)))

        parts = [*work(prepared, range(0, len(training), BLOCK[3]))]
        people = torch.from_numpy(np.repeat(training.people, counts))
        self._owner = np.repeat(np.arange(len(training)), counts)
        self._finder = Finder(concatenated(parts), people)

    def find(self, images: Array, low: Array, high: Array, people: Array | None) -> Found:
        """Look for volumes whose heads lie from `low` to `high`, `[n, axis]`."""
        queries = 0.5 + MIDDLE * (shares(QUERIES) - 0.5)
        seen = views(self._cut(images, low, high, queries))
        others = None if people is None else torch.from_numpy(np.repeat(people, QUERIES))
        found = self._finder.find(seen, others)
        score = found.score.numpy().reshape(-1, QUERIES)
        owners = self._owner[found.row.numpy()].reshape(-1, QUERIES)
        area = seen.area.numpy().reshape(-1, QUERIES).mean(1)
        return Found(self._most_named(owners, score), score.mean(1), area)

    def _most_named(self, owners: Array, score: Array) -> Array:
        """Return the training volume of which the most alike slices are, `[n]`."""
        alike = zip(owners, np.maximum(score, 0), strict=True)
        sums = [np.bincount(row, weight, self._count) for row, weight in alike]
        return np.array([each.argmax() for each in sums], np.int64)

    def _cut(self, images: Array, low: Array, high: Array, where: Array) -> Array:
        first, last = (each[:, self._axis, None] for each in (low, high))
        places = (first + (last - first) * where).astype(np.int64)
        return taken(images, self._axis, places)
