"""What paints a lesion: the crop that it is given, and what it has to give back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from attrs import frozen

from medgen.data.grid import Grid

Array = np.ndarray[Any, np.dtype[Any]]
Numbers = Mapping[str, float]
"""Of a lesion, by name, each in its unit; see `medgen.api.numbers`."""
NONE: Numbers = MappingProxyType({})


@frozen(eq=False)
class Crop:
    """One place in a scan, with any number of axes: a slice has two, a volume three.

    image: float32 `[channel, *size]` in [0, 1], by the window of the whole scan (the two
    percentiles of its head that training takes too; clipped). mask: bool `[*size]`, the lesion. parts:
    bool `[part, *size]`, what of it is in each of the model's masks; None: one, the mask.
    region: bool `[*size]`, the mask dilated within the head, all that may change; as in training,
    by `data.store.crop_targets.region`. spacing: mm along each axis. head: bool `[*size]`. donor: the
    scan that a real mask was taken from, moved, turned and warped as the mask was, so that its mask
    is this one; None where the mask is no real one.
    """

    image: Array
    mask: Array
    region: Array
    spacing: tuple[float, ...]
    head: Array
    donor: Crop | None = None
    parts: Array | None = None


class Painter(Protocol):
    """Paints lesions.

    channels: the images that it paints, by name, in the order of `Crop.image`. grid: of the crops
    that it takes, slices or volumes; None for volumes of any shape and spacing. margin: mm from the
    mask to the edge of the region.
    """

    channels: tuple[str, ...]
    grid: Grid | None
    margin: float

    def numbers(self, crops: Sequence[Crop], seed: int) -> Numbers:
        """Draw what a lesion, whole or in slices, is painted by besides its crops, by name."""

    def paint(
        self, crops: Sequence[Crop], seeds: Sequence[int], numbers: Numbers = NONE
    ) -> list[Array]:
        """Paint float32 `[channel, *size]` in [0, 1] for each crop, by the crop, its seed and the
        numbers alone.

        Only what is in the region is used, and faded into the scan at its edge.
        """


def paints_volumes(painter: Painter) -> bool:
    """Whether a painter was trained on volumes."""
    return painter.grid is not None and len(painter.grid.shape) == 3


def learns_nothing(painter: Painter) -> bool:
    """Whether a painter takes crops of any size, as none does that was trained."""
    return painter.grid is None
