"""What a line of the manifest says of its pair besides its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from medgen.data.grid import Grid
from medgen.data.store.nifti_writer import as_written
from medgen.evaluation.lesion_outside_head import outside

Array = np.ndarray[Any, np.dtype[Any]]


def lesion_figures(
    channels: Mapping[str, Array], masks: frozenset[str], grid: Grid
) -> dict[str, Any]:
    """`lesions`: how many, their area in mm2, of volumes their volume in mm3, and the share of it
    outside the head; nothing where there is no mask.

    channels: slices `[x, y]` or volumes in [-1, 1] by name, those in `masks` set where > 0.
    """
    given = [values > 0 for name, values in channels.items() if name in masks]
    images = [values for name, values in channels.items() if name not in masks]
    if not given:
        return {}
    lesion = np.any(given, axis=0)
    area = round(float(np.count_nonzero(lesion)) * grid.cell, 2)
    count = int(ndimage.label(lesion, np.ones((3,) * lesion.ndim))[1])
    found: dict[str, Any] = {"count": count, f"mm{lesion.ndim}": area}
    if images:
        found["outside"] = round(outside(np.stack([*map(as_written, images)]), lesion), 4)
    return {"lesions": found}
