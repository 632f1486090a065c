"""Lesions as small patches of what their masks cover, to find copies of one in another head."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations, product
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

PATCH = 16
"""px of a patch's side."""
ROOM, SMALLEST = 1.5, 12.0
"""The patch's side in those of the lesion's box, and at least, px of the image: a copy has the same
box.
"""
LEAST = 3
"""Side, px, of a square or cube; a lesion with fewer px shows nothing that tells it from others."""
CHUNK = 512


class Patches(NamedTuple):
    """Lesions. values: `[n, PATCH ** axes]`, brightness inside the mask, mean 0, unit norm. area:
    px. row: slice or volume.
    """

    values: Tensor
    area: Array
    row: Array


def patches(images: Array, masks: Array) -> Patches:
    """Cut each lesion out of images `[n, channel, *space]` in [-1, 1] with masks bool `[n, *space]`."""
    values, areas, rows = [], [], []
    axes = masks.ndim - 1
    for row in np.flatnonzero(masks.any(axis=tuple(range(1, masks.ndim)))).tolist():
        labels, _ = ndimage.label(masks[row], np.ones((3,) * axes))
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            part = labels[box] == number
            if (area := int(part.sum())) >= LEAST**axes:
                values.append(_patch(images[row].mean(0), labels == number, box))
                areas.append(area)
                rows.append(row)
    stacked = torch.stack(values) if values else torch.zeros(0, PATCH**axes)
    return Patches(stacked, np.array(areas, np.int64), np.array(rows, np.int64))


def _patch(image: Array, mask: Array, box: tuple[slice, ...]) -> Tensor:
    """Return a lesion around the middle of its box, resampled, so that a flip or a quarter turn
    only permutes the px.
    """
    half = max(ROOM * max(each.stop - each.start for each in box), SMALLEST) / 2
    middle = [(each.start + each.stop - 1) / 2 for each in box]
    at = (torch.arange(PATCH).float() - (PATCH - 1) / 2) * (2 * half / PATCH)
    places = torch.meshgrid(*(at + each for each in middle), indexing="ij")
    sides = torch.tensor(image.shape[::-1])
    grid = (
        torch.stack(places[::-1], -1) * 2 + 1
    ) / sides - 1  # the last axis first, as torch wants
    inside = mask.astype(np.float32)
    both = torch.from_numpy(np.stack([image * inside, inside]).astype(np.float32))
    total, weight = F.grid_sample(both[None], grid[None], align_corners=False)[0]
    value = total / weight.clamp_min(
        1e-3
    )  # of the lesion's own px alone: its surroundings are another head's
    centred = (value - (value * weight).sum() / weight.sum().clamp_min(1e-6)) * weight
    return F.normalize(centred.flatten(), dim=0)


def most_alike(
    moving: Patches, references: Patches, same: Callable[[Array], Array] | None = None
) -> tuple[Array, Array]:
    """Return the reference most like each lesion, flipped and in quarter turns: its number and the
    correlation, -1 to 1.

    same: for some lesions' numbers, bool `[len, references]`: which not to compare with.
    """
    score, number = np.full(len(moving.area), -1.0), np.zeros(len(moving.area), np.int64)
    for start in range(0, len(score) if len(references.area) else 0, CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(score)))
        likeness = torch.stack(
            [each @ references.values.T for each in _turned(moving.values[start : start + CHUNK])]
        )
        best = likeness.max(0).values
        if same is not None:
            best[torch.from_numpy(same(rows))] = -1.0
        found = best.max(1)
        score[rows], number[rows] = found.values.numpy(), found.indices.numpy()
    return number, score


def _turned(values: Tensor) -> list[Tensor]:
    """Return the ways to flip and turn patches: eight of a square, 48 of a cube."""
    axes = round(math.log(values.shape[1], PATCH))
    whole = values.view(-1, *(PATCH,) * axes)
    turned = [
        whole.permute(0, *order).flip([axis for axis, flip in enumerate(flips, 1) if flip])
        for order in permutations(range(1, axes + 1))
        for flips in product((False, True), repeat=axes)
    ]
    return [each.reshape(len(values), -1) for each in turned]
