"""How many mm a pixel of a cohort's slices or volumes has."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medgen.api.tables import DataSettings
from medgen.data.store.head import Head

SAME = 1e-4
"""How far two voxel sizes may be apart that headers mean to be one."""


MARGIN, RIM = 0.02, 2
"""What stays free around the largest head: a share of its size, and px, into which interpolation
spreads its rim.
"""
DIGITS = 3
"""Of a spacing that is chosen, so that headers read well."""


def choose(settings: DataSettings, heads: Sequence[Head]) -> float:
    """mm per pixel: `data.spacing`, or else the least at which every head fits, rounded up.

    Samples that are a grid of `data.image_size` already, all of one size in mm, stay as they are.
    Of crops: the median of the scans' own.
    """
    within, shape = settings.within, settings.shape
    if settings.spacing:
        return settings.spacing
    if settings.crop != "none":
        return _median([float(head.spacing[i]) for head in heads for i in within])
    native = float(heads[0].spacing[within[0]])
    if all(
        on_grid([head.shape[i] for i in within], [head.spacing[i] for i in within], shape, native)
        for head in heads
    ):
        return float(f"{native:.6g}")
    needed = max(
        head.room(axis) * (1 + MARGIN) / (size - RIM)
        for head in heads
        for axis, size in zip(within, shape, strict=True)
    )
    unit = 10.0 ** (math.floor(math.log10(needed)) + 1 - DIGITS)
    return float(f"{math.ceil(needed / unit * (1 - SAME)) * unit:.{DIGITS}g}")


def _median(own: Sequence[float]) -> float:
    """The median of the scans' mm per voxel, as it is where all have it."""
    middle = float(np.median(own))
    return float(
        f"{middle:.6g}" if np.allclose(own, middle, rtol=SAME, atol=0) else f"{middle:.{DIGITS}g}"
    )


def on_grid(
    counts: Sequence[int], spacing: Sequence[float], shape: Sequence[int], pixel: float
) -> bool:
    """Whether samples of so many voxels are the grid already, as those are that were made by a
    model.
    """
    return tuple(counts) == tuple(shape) and bool(np.allclose(spacing, pixel, rtol=SAME, atol=0))
