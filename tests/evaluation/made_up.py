"""Slices of made-up heads: a bright disc, structure of the person's own, and brighter lesions."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgen.data.grid import Grid
from medgen.evaluation.samples import Samples


def heads(
    persons: int,
    slices: int = 3,
    size: int = 48,
    seed: int = 0,
    first: int = 0,
    contrast: float = 0.5,
) -> Samples:
    """`persons * slices` slices at 3 mm per pixel, each with one or two lesions."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - size / 2
    images, masks = [], []
    for _ in range(persons):
        level, texture = (
            rng.uniform(-0.4, 0),
            ndimage.gaussian_filter(rng.normal(size=(size, size)), 3),
        )
        for _ in range(slices):
            head = (y / rng.uniform(0.38, 0.45)) ** 2 + (x / rng.uniform(0.32, 0.4)) ** 2 < size**2
            image = np.where(head, level + texture + rng.normal(0, 0.05, (size, size)), -1)
            mask = np.zeros((size, size), bool)
            for _ in range(rng.integers(1, 3)):
                centre, radius = rng.uniform(-0.18, 0.18, 2) * size, rng.uniform(1.2, 3.5)
                mask |= np.hypot(y - centre[0], x - centre[1]) < radius
            images.append(
                np.clip(image + contrast * ndimage.gaussian_filter(mask.astype(float), 0.6), -1, 1)
            )
            masks.append(mask)
    count = persons * slices
    return Samples(
        images=np.array(images, np.float32)[:, None],
        masks=np.array(masks),
        people=first + np.arange(count) // slices,
        position=np.full(count, np.nan, np.float32),
        names=tuple(f"slice {number}" for number in range(count)),
        channels=("bravo",),
        grid=Grid.of_slices(size, 3.0, "axial"),
        where="made up",
    )
