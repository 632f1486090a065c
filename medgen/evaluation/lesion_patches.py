"""Lesions as small patches of what their masks cover, to find copies of one in another head."""

from __future__ import annotations

from collections.abc import Callable
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
"""The patch's side in those of the lesion's box, and at least, px of the slice: a copy has the same
box.
"""
LEAST = 9
"""px below which a lesion shows nothing that tells it from others."""
CHUNK = 512


class Patches(NamedTuple):
    """Lesions. values: `[n, PATCH * PATCH]`, brightness inside the mask, mean 0, unit norm. area:
    px. row: slice.
    """

    values: Tensor
    area: Array
    row: Array


def patches(images: Array, masks: Array) -> Patches:
    """Cut each lesion out of slices `[n, channel, h, w]` in [-1, 1] with masks bool `[n, h, w]`."""
    values, areas, rows = [], [], []
    for row in np.flatnonzero(masks.any(axis=(1, 2))).tolist():
        labels, _ = ndimage.label(masks[row], np.ones((3, 3)))
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            part = labels[box] == number
            if (area := int(part.sum())) >= LEAST:
                values.append(_patch(images[row].mean(0), labels == number, box))
                areas.append(area)
                rows.append(row)
    stacked = torch.stack(values) if values else torch.zeros(0, PATCH * PATCH)
    return Patches(stacked, np.array(areas, np.int64), np.array(rows, np.int64))


def _patch(image: Array, mask: Array, box: tuple[slice, slice]) -> Tensor:
    """Return a lesion around the middle of its box, resampled, so that a flip or a quarter turn
    only permutes the px.
    """
    height, width = (each.stop - each.start for each in box)
    half = max(ROOM * max(height, width), SMALLEST) / 2
    middle = [(each.start + each.stop - 1) / 2 for each in box]
    at = (torch.arange(PATCH).float() - (PATCH - 1) / 2) * (2 * half / PATCH)
    rows, columns = torch.meshgrid(at + middle[0], at + middle[1], indexing="ij")
    sides = torch.tensor([image.shape[1], image.shape[0]])
    grid = (torch.stack([columns, rows], -1) * 2 + 1) / sides - 1
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
    """Return the eight ways to flip and turn patches."""
    square = values.view(-1, PATCH, PATCH)
    turned = [
        torch.rot90(each, count, (1, 2)) for each in (square, square.flip(1)) for count in range(4)
    ]
    return [each.reshape(len(values), -1) for each in turned]
