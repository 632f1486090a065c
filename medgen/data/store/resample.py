"""Linear interpolation of slices and volumes from voxels to pixels, antialiased."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def weights(
    count: int, spacing: float, extent: float, size: int, centre: float | None = None
) -> sparse.csr_array:
    """Linear interpolation along one axis, antialiased, as a sparse matrix `[size, count]`.

    `count` voxels of `spacing` mm become `size` pixels of `extent` mm in all, around `centre`
    (voxels from the first face; the middle if None). A pixel's weights add up to 1 together with
    those of the zeros outside the volume. The kernel is a triangle of one pixel or one voxel to
    each side, whichever is larger.
    """
    pixel, middle = extent / size, count / 2 if centre is None else centre
    reach = max(pixel, spacing)
    half = (extent / 2 + reach) / spacing
    before = max(0, int(np.ceil(half - middle))) + 1
    after = max(0, int(np.ceil(half - (count - middle)))) + 1
    voxels = (np.arange(-before, count + after) + 0.5 - middle) * spacing
    pixels = (np.arange(size) + 0.5 - size / 2) * pixel
    kernel = np.clip(1 - np.abs(pixels[:, None] - voxels) / reach, 0, None)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return sparse.csr_array(kernel[:, before : before + count].astype(np.float32))


def resample(stack: np.ndarray, *along: sparse.csr_array) -> np.ndarray:
    """`[sample, *voxels]` to `[sample, *pixels]` with the weights of each axis; sparse, so on one
    core.
    """
    values = np.moveaxis(stack, 0, -1)
    for each in along:  # the first axis, which then goes behind the others
        rest = values.shape[1:]
        values = np.moveaxis((each @ values.reshape(len(values), -1)).reshape(-1, *rest), 0, -2)
    return np.moveaxis(values, -1, 0)
