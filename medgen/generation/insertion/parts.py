"""Parts of a lesion, such as its core and the oedema around it: masks that may overlap, and that cover it
together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[Any]]


def sampled(parts: Array, within: Array, sample: Callable[[Array], Array]) -> Array:
    """Return the parts, bool `[part, *size]`, of the voxels of a lesion, `within`, on another grid.

    parts: bool `[part, *source]`. sample: interpolates float32 `[*source]` on that grid. Each voxel has
    the parts that together cover most of it.
    """
    if len(parts) == 1:
        return within[None]
    bits = 1 << np.arange(len(parts))
    here = np.tensordot(bits, parts.astype(np.int64), 1)
    kinds = np.unique(here[here > 0])
    shares = np.stack([sample((here == kind).astype(np.float32)) for kind in kinds])
    nearest = kinds[np.argmax(shares, axis=0)]
    return np.asarray((nearest & bits.reshape(-1, *[1] * within.ndim) > 0) & within)


def covering(parts: Array, lesion: Array) -> Array:
    """Return parts, bool `[part, *size]`, that cover a lesion, bool `[*size]`: where there is none, a
    voxel has those of the nearest that has any.
    """
    there = parts.any(0)
    if not (lesion & ~there).any():
        return parts & lesion
    nearest = ndimage.distance_transform_edt(~there, return_distances=False, return_indices=True)
    return np.stack([part[tuple(nearest)] & lesion for part in parts])
