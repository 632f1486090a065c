"""What is kept of a patient: slices, or crops around the lesions in them, or the volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medgen.data.store import crops

NONE = np.empty(0, np.int32)


class Slices(NamedTuple):
    """Those slices of a patient that show anything; all of them if there are masks only. Or crops
    around its lesions. Or the volume, as a single sample.

    stacks: per channel `[slice, *size]`, float16 in [-1, 1], or for a mask uint8, 0 or 1.
    position: along the axis, in voxels, 0 of a volume. foreground: share of the sample that is
    foreground in the first image, 1 if there is none. area: px of each mask, `[slice, mask]`. spacing: mm per pixel.
    content: per channel, as in `consistency.Scan`. lesions: how many each mask has, and how many of
    them lie outside the square, `[mask, 2]`. lost: of those, see `lesions.Loss`, `[lesion, (mask,
    area, needs)]`. air: per channel, the shares of `Head.air`. cut_off: mm of the head that do not
    fit. voxel: mm along each axis. likeness: of the first image, packed; zeros where there is none.
    background: per channel, a word of `foreground.detect`, empty for a mask. covered: per channel, the
    share of `Head.covered`. place, extent: of crops, as in `Index`; none of slices.
    """

    stacks: list[np.ndarray]
    position: np.ndarray
    foreground: np.ndarray
    area: np.ndarray
    spacing: float
    content: list[str]
    lesions: np.ndarray
    lost: np.ndarray
    air: np.ndarray
    cut_off: float
    voxel: np.ndarray
    likeness: np.ndarray
    background: list[str]
    covered: np.ndarray
    place: np.ndarray = NONE
    extent: np.ndarray = NONE


def cropped(whole: Slices, masks: Sequence[bool], shape: Sequence[int]) -> Slices:
    """Crops of `shape` px, with their rim, around the lesions of slices or of the volume, in place of
    these. masks: whether each channel is one.

    The foreground of a crop is what is not as dark as the background, in the first image.
    """
    pairs = [*zip(whole.stacks, masks, strict=True)]
    lesions = np.any([stack for stack, mask in pairs if mask], axis=0)
    places = crops.find(lesions)
    sides = crops.with_rim(shape)
    stacks = [crops.cut(stack, places, sides, 0 if mask else -1) for stack, mask in pairs]
    inner = [*zip((crops.central(stack, shape) for stack in stacks), masks, strict=True)]
    axes = tuple(range(1, lesions.ndim))
    area = [np.count_nonzero(each, axis=axes) for each, mask in inner if mask]
    shown = [np.mean(each > -1, axis=axes) for each, mask in inner if not mask]
    return whole._replace(
        stacks=stacks,
        position=whole.position[[place.number for place in places]],
        foreground=np.asarray(shown[0] if shown else np.ones(len(places)), np.float32),
        area=np.stack(area, axis=1).astype(np.int32),
        place=np.array([place.middle for place in places], np.int32).reshape(-1, lesions.ndim - 1),
        extent=np.array([place.extent for place in places], np.int32),
    )
