"""Compute in overlapping tiles: no network sees more than it was trained on, and memory does not grow
with the sample.

MONAI's `sliding_window_inference` gives some weight to the rim of each tile, which knows nothing of
what lies beyond, and keeps a map of weights as large as the result; here such a rim has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import torch
from torch import Tensor

from medgen.api.interfaces import Space
from medgen.api.tables import DataSettings


class Tiles(NamedTuple):
    """Edges of a tile along each axis, and the least by which neighbours overlap, at most half of
    the shortest edge; points of the space's grid (of a latent space: latent px).
    """

    size: tuple[int, ...]
    overlap: int

    def divide(self, space: Sequence[int]) -> bool:
        """Return True if samples `[*space]` are more than one tile."""
        return any(length > edge for length, edge in zip(space, self.size, strict=True))


class Part(NamedTuple):
    """What a tile covers of an axis, from `start` to `stop`; it counts from the middle of the ramp
    at `rise`, if any, to that of the ramp at `fall`; points of the space's grid.
    """

    start: int
    stop: int
    rise: float | None
    fall: float | None


def of_crops(space: Space, data: DataSettings) -> Tiles | None:
    """Return tiles of the size of the crops that a network was trained on; None for whole samples.

    Neighbours overlap by half of the shortest edge, so that an eighth of a tile at each rim, of
    which the network sees the least context, counts nothing.
    """
    if data.patch_size is None:
        return None
    size = tuple(space.shape(data.trained_shape)[1:])
    return Tiles(size, min(size) // 2)


def in_tiles(
    compute: Callable[[Tensor], Tensor],
    x: Tensor,
    tiles: Tiles,
    before: int = 1,
    after: int = 1,
) -> Tensor:
    """Return what `compute` makes of `[batch, channel, *space]`, put together from tiles; fp32.

    before, after: points of x and of the result per point of the tiles' grid and side. Of each overlap the middle
    half is a ramp from one tile to the next, and the rest context alone. So the result is that of
    the whole where no tile overlaps another if `compute` sees no further than the overlap, and
    everywhere if it sees no further than a quarter of it. A norm that takes its statistics of what
    it is given, such as a group norm, sees a tile and not the whole: then the two differ in any
    case, least where tiles are of the size that was trained on, and ramps hide the seams.
    """
    axes = [
        parts(length // before, edge, tiles.overlap)
        for length, edge in zip(x.shape[2:], tiles.size, strict=True)
    ]
    out: Tensor | None = None
    for each in product(*axes):
        made = compute(x[_window(each, before)]).float()
        if out is None:
            size = [length // before * after for length in x.shape[2:]]
            out = made.new_zeros(*made.shape[:2], *size)
        for axis, part in enumerate(each):
            weight = _weight(part, tiles.overlap / 2, after, made.device)
            made = made * weight.view(-1, *(1,) * (len(each) - 1 - axis))
        out[_window(each, after)] += made
    assert out is not None  # there is a tile
    return out


def _window(tile: Sequence[Part], points: int) -> tuple[slice, ...]:
    """Return where a tile lies in `[batch, channel, *space]`. points: per point of the tiles' grid
    and side.
    """
    places = (slice(part.start * points, part.stop * points) for part in tile)
    return (slice(None), slice(None), *places)


def parts(length: int, size: int, overlap: int) -> list[Part]:
    """Divide an axis into as few tiles as overlap by at least `overlap`, evenly spread."""
    count = max(1, -(-(length - overlap) // (size - overlap)))
    starts = [round(number * max(0, length - size) / max(1, count - 1)) for number in range(count)]
    cuts = [(one + size + other) / 2 for one, other in pairwise(starts)]
    edges = zip(starts, [None, *cuts], [*cuts, None], strict=True)
    return [Part(start, min(start + size, length), rise, fall) for start, rise, fall in edges]


def _weight(part: Part, ramp: float, after: int, device: torch.device) -> Tensor:
    """Return the weight of each point of the result along an axis of a tile, fp32; those of all
    tiles add up to 1. ramp: its length, points of the tiles' grid.
    """
    points = torch.arange((part.stop - part.start) * after, device=device)
    at = part.start + (points + 0.5) / after

    def risen(cut: float) -> Tensor:
        return ((at - cut) / max(ramp, 1e-6) + 0.5).clamp(0, 1)

    weight = torch.ones_like(at) if part.rise is None else risen(part.rise)
    return weight if part.fall is None else weight - risen(part.fall)
