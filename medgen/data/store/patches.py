"""Crops of slices and volumes, cut as they are read: where, depends on the place in the run alone.

A crop around a lesion has its middle up to a quarter of its side from that of the lesion's box. The
lesion, a connected part of all masks together, touching corners connected, is any of the sample's
with the same chance, however small. All other crops lie anywhere within the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from medgen import seeds
from medgen.api.tables import DataSettings
from medgen.data.store.slice_store import SliceStore

Array = np.ndarray[Any, np.dtype[Any]]
FIXED = "patch/fixed"
"""Purpose of the draws for samples that have no place in a run: those to validate on, and shown."""
UNSET, SIGN = int(np.float16(-1).view(np.uint16)), 15
"""Bits of a mask's -1 in float16, and the place of the bit that makes 1 of it."""
PARTS = 1_000_000
"""Into which `data.lesion_patches` is divided."""


class Patches:
    """Crops `[*shape]` of a store's samples. Readable from any thread.

    share: of the crops that are around a lesion, 0 to 1, of samples that have one. Knows the
    middles of the lesions of the samples that have been read, and nothing else of them.
    """

    def __init__(self, store: SliceStore, shape: tuple[int, ...], share: float, seed: int):
        self.store, self.shape, self.share, self.seed = store, shape, share, seed
        self.spare = [whole - side for whole, side in zip(store.grid.shape, shape, strict=True)]
        self._lesions: dict[int, Array] = {}

    @classmethod
    def of(cls, store: SliceStore, data: DataSettings, seed: int) -> Patches | None:
        """Return the crops that a recipe asks for; None for whole samples."""
        if data.patch_size is None:
            return None
        return cls(store, data.trained_shape, data.lesion_patches, seed)

    def fixed(self, rows: Array) -> Array:
        """Return the corner of a crop of each row, `[row, axis]`, the same each time."""
        return self._corners(FIXED, rows, rows)

    def drawn(self, rows: Array, places: Array) -> Array:
        """Return the corner of a crop of each row, `[row, axis]`, for its place in the run."""
        return self._corners("patch", rows, places)

    def places(self, corners: Array) -> Array:
        """Return where crops lie in their samples, float32 `[row, 2, axis]`; see `Batch.place`."""
        whole = np.broadcast_to(self.store.grid.shape, corners.shape)
        return np.stack([corners, whole], axis=1).astype(np.float32)

    def read(self, rows: Array, channels: Sequence[str], corners: Array) -> Array:
        """Return `[row, channel, *shape]` float16 in [-1, 1], masks at -1 and 1.

        Reads no more of a memory-mapped sample than what a crop shows, and the lines that it is on.
        """
        out = np.empty((len(rows), len(channels), *self.shape), np.float16)
        for number, channel in enumerate(channels):
            for place, (row, corner) in enumerate(
                zip(rows.tolist(), corners.tolist(), strict=True)
            ):
                ends = zip(corner, self.shape, strict=True)
                cut = self.store.raw(channel, row)[tuple(slice(a, a + side) for a, side in ends)]
                if channel in self.store.masks:
                    _set_signs(out[place, number].view(np.uint16), cut)
                else:
                    out[place, number] = cut
        return out

    def _corners(self, purpose: str, rows: Array, places: Array) -> Array:
        each = zip(rows.tolist(), places.tolist(), strict=True)
        corners = [self._corner(purpose, row, place) for row, place in each]
        return np.array(corners, int).reshape(len(rows), len(self.shape))

    def _corner(self, purpose: str, row: int, place: int) -> list[int]:
        def draw(axis: int, count: int) -> int:
            return seeds.derive(self.seed, purpose, place, axis) % count

        axes = range(len(self.shape))
        if draw(len(axes), PARTS) < round(self.share * PARTS) and len(found := self.lesions(row)):
            middle = found[draw(len(axes) + 1, len(found))].tolist()
            starts = [
                middle[axis] - side // 2 + draw(axis, side // 2 + 1) - side // 4
                for axis, side in enumerate(self.shape)
            ]
            return [
                min(max(start, 0), most) for start, most in zip(starts, self.spare, strict=True)
            ]
        return [draw(axis, self.spare[axis] + 1) for axis in axes]

    def lesions(self, row: int) -> Array:
        """Return the middle of the box of each lesion of a row, px, `[lesion, axis]`."""
        if row not in self._lesions:
            self._lesions[row] = self._middles(row)
        return self._lesions[row]

    def _middles(self, row: int) -> Array:
        shown = np.zeros(self.store.grid.shape, bool)
        for name in self.store.lesion_area:
            if self.store.lesion_area[name][row]:
                shown |= self.store.raw(name, row) > 0
        boxes = ndimage.find_objects(ndimage.label(shown, np.ones((3,) * shown.ndim))[0])
        middles = [[(part.start + part.stop) // 2 for part in box] for box in boxes]
        return np.array(middles, np.int32).reshape(len(boxes), shown.ndim)


def _set_signs(bits: Array, mask: Array) -> None:
    """Write the bits of float16 1 where a mask of 0 and 1 is set, and of -1 elsewhere: ten times
    faster than to look each up.
    """
    np.left_shift(mask, SIGN, out=bits, dtype=np.uint16)
    np.bitwise_xor(bits, UNSET, out=bits)
