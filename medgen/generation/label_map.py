"""One label map of several masks, where the recipe's masks came from one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from medgen.api.tables import DataSettings
from medgen.data.scans.layouts import mask

Array = np.ndarray[Any, np.dtype[Any]]
MOST = 255
"""The largest label that a file of masks, uint8, can hold."""


class LabelMap(NamedTuple):
    """name: of the file without its end. labels: of each mask, by its name; empty: every label but 0."""

    name: str
    labels: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, data: DataSettings, masks: Sequence[str]) -> LabelMap | None:
        """Return the label map of volumes with several masks of one file; None if each has its own."""
        made = {name: mask(data, name) for name in masks}
        sources = {each.file for each in made.values()}
        largest = max((label for each in made.values() for label in each.labels), default=0)
        if data.axes < 3 or len(made) < 2 or len(sources) > 1 or largest > MOST:
            return None
        return cls(sources.pop(), {name: each.labels for name, each in made.items()})

    def merged(self, channels: Mapping[str, Array]) -> Array:
        """Return the labels of voxels, uint8, of masks `[x, y, z]` that are set where > 0.

        A voxel has the label that lies in all masks that are set there, and in no others. Where there
        is none, as a model may set a part without the whole, it has the one of which that holds for
        most masks, of equal ones one that lies in more of those that are set.
        """
        names = list(self.labels)
        there = np.stack([channels[name] > 0 for name in names])
        bits, table = 1 << np.arange(len(names)), np.zeros(1 << len(names), np.uint8)
        for wanted in product((False, True), repeat=len(names)):
            table[np.dot(wanted, bits)] = self._label(wanted)
        return table[np.tensordot(bits, there.astype(np.int64), 1)]

    def _label(self, wanted: Sequence[bool]) -> int:
        """Return the label that lies in the masks wanted and in no others, or nearly."""
        if not any(wanted):
            return 0
        known = [label for each in self.labels.values() for label in each] or [1]

        def agreeing(label: int) -> tuple[int, int]:
            held = [label in each if each else True for each in self.labels.values()]
            pairs = [*zip(held, wanted, strict=True)]
            return sum(one == other for one, other in pairs), sum(map(all, pairs))

        return max(known, key=agreeing)
