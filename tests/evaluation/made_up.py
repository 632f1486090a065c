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


def volumes(
    persons: int, size: int = 16, seed: int = 0, first: int = 0, contrast: float = 0.5
) -> Samples:
    """Volumes of made-up persons, one each: smooth texture in an ellipsoid, with bright balls."""
    rng = np.random.default_rng([3, seed])
    axes = np.indices((size,) * 3) - (size - 1) / 2
    images, masks = [], []
    for _ in range(persons):
        half = rng.uniform((0.34, 0.4, 0.38), (0.38, 0.45, 0.42)) * size
        head = ((axes / half[:, None, None, None]) ** 2).sum(0) < 1
        texture = ndimage.gaussian_filter(rng.normal(size=head.shape), 1.5)
        image = np.where(head, rng.uniform(-0.1, 0.1) + 0.15 * texture / texture.std(), -1)
        mask = np.zeros(head.shape, bool)
        for centre in rng.uniform(-0.2, 0.2, (int(rng.integers(1, 3)), 3)) * size:
            mask |= ((axes - centre[:, None, None, None]) ** 2).sum(0) < rng.uniform(1.5, 2.5) ** 2
        images.append(np.clip(np.where(mask & head, image + contrast, image), -1, 1))
        masks.append(mask)
    return Samples(
        images=np.array(images, np.float32)[:, None],
        masks=np.array(masks),
        people=first + np.arange(persons),
        position=np.full(persons, np.nan, np.float32),
        names=tuple(f"patient {first + number}" for number in range(persons)),
        channels=("bravo",),
        grid=Grid.of_volumes((size,) * 3, 4.0),
        where="made up",
    )
