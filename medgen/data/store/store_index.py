"""What a slice store knows of each slice and patient: `index.npz`."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen.data.store import cache_folder

UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    RuntimeError,
)
"""What damage to an .npz makes NumPy and zipfile raise, besides OSError."""


class Index(NamedTuple):
    """What is known of each slice. Arrays over slices, `area` `[slice, mask]`; spacing: mm per
    pixel, one for all.

    content: `[patient, channel]`, as in `consistency.Scan`. voxel: `[patient, 3]`, mm. likeness: of
    each patient, packed. background: `[patient, channel]`, a word of `foreground.detect` as ASCII, empty
    for a mask. crc: of each channel's file. The others are those of `concerns.Figures`. Of crops
    alone, place: the middle of the lesion's box, px of the least square around the slice, `[crop,
    axis]`; extent: the box's longest side, px.
    """

    patient: np.ndarray
    position: np.ndarray
    foreground: np.ndarray
    area: np.ndarray
    spacing: np.ndarray
    content: np.ndarray
    voxel: np.ndarray
    likeness: np.ndarray
    background: np.ndarray
    crc: np.ndarray
    lesions: np.ndarray
    lost: np.ndarray
    air: np.ndarray
    cut_off: np.ndarray
    width: np.ndarray
    covered: np.ndarray
    place: np.ndarray | None = None
    extent: np.ndarray | None = None


def read_index(folder: Path) -> Index:
    try:
        with np.load(folder / "index.npz") as arrays:
            return Index(**arrays)
    except UNREADABLE as error:
        raise cache_folder.Damaged(f"index.npz: {error}") from None
