"""Numbers that a model may be given besides channels, such as the position in the head.

Each is brought from its unit to about [-1, 1] by a fixed scale, the same for all data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

LARGEST_LESION = 10_000.0
"""mm2 of lesion in a slice, or mm3 in a volume, that become 1."""
RING = 4.0
"""mm around a lesion that are its surroundings."""


class Number(NamedTuple):
    """What a number says of a slice or volume, and its scale, which maps it to about [-1, 1]."""

    help: str
    scale: Callable[[float], float]


NUMBERS = {
    "position": Number(
        "place of the slice in the head, from 0, the first slice of it (bottom, back or left), to 1",
        lambda value: 2 * value - 1,
    ),
    "lesion_size": Number(
        "area of all masks in the slice, mm2, or their volume, mm3",
        lambda value: 2 * math.log1p(value) / math.log1p(LARGEST_LESION) - 1,
    ),
    "spacing": Number(
        "side of the scan's own voxels in the slice or volume, mm; of several the geometric mean",
        lambda value: math.log2(value) / 2,
    ),
    "contrast": Number(
        "mean of the lesions less that of the rest of the head in the first image, which is in [-1, 1];"
        f" 0 without a lesion; for insertion, of a lesion less that of {RING:g} mm around it",
        lambda value: value / 2,
    ),
}
"""Every number by its name in a mode's `numbers`."""
PLACE = "place"
"""Name in a mode's `numbers` of where each point of a crop lies in its sample: no number, but a channel
of coordinates for each axis (CoordConv, Liu et al. 2018).
"""
OF_CROPS = ("position", "spacing", PLACE)
"""Those that are as true of a crop of a sample as of the whole of it."""
OF_INSERTION = ("contrast",)
"""Those of crops around a lesion, where they are of that lesion and what surrounds it."""
OF_SLICES = ("position",)
"""Those that a volume has not."""
OF_LESIONS = ("lesion_size", "contrast")
"""Those that need a mask."""
OF_SCANS = ("contrast",)
"""Those that need an image that is no mask."""
