"""Made-up heads with an inside: an outline, a midline, ventricles that grow towards the middle, folds at the rim."""

from __future__ import annotations

import numpy as np

from medgen.data.grid import Grid
from medgen.evaluation.samples import Samples

SIZE = 32


def heads(
    persons: int, slices: int = 6, seed: int = 0, size: int = SIZE, first: int = 0
) -> Samples:
    """Samples of so many persons, of one channel, each slice with a lesion. Every person is a little different."""
    images, masks, people, position = [], [], [], []
    for person in range(first, first + persons):
        rng = np.random.default_rng([seed, person])
        own = rng.normal(0, 1, 5)
        for number in range(slices):
            place = (number + 0.5) / slices
            image, mask = _slice(place, own, rng, size)
            images.append(image)
            masks.append(mask)
            people.append(person)
            position.append(place)
    names = tuple(f"patient {person}, slice {number}" for number, person in enumerate(people))
    arrays = np.stack(images)[:, None].astype(np.float32), np.stack(masks)
    about = names, ("bravo",), Grid.of_slices(size, 4.0, "axial"), "made up"
    return Samples(*arrays, np.array(people), np.array(position, np.float32), *about)


def _slice(place, own, rng, size):
    x, y = np.meshgrid(*(np.linspace(-1.1, 1.1, size),) * 2, indexing="ij")
    width, length = (
        (0.72 + 0.03 * own[0]) * (1 - 0.3 * (place - 0.5) ** 2 * 4),
        0.92 + 0.03 * own[1],
    )
    lower = 1 - 0.18 * np.clip(y, 0, 1)  # narrower in front
    radius = np.hypot(x / (width * lower), y / length)
    angle = np.arctan2(y, x)
    folds = np.cos((14 + 2 * np.round(own[2])) * angle + own[3]) * np.exp(
        -(((radius - 0.85) / 0.12) ** 2)
    )
    middle = np.exp(-((x / 0.05) ** 2)) * (np.abs(y) > 0.35)
    grown = (0.3 + 0.03 * own[4]) * (1 - 2 * abs(place - 0.55))
    ventricles = (
        np.hypot((np.abs(x) - 0.14) / 0.1, (y + 0.1 * np.abs(x)) / max(grown, 1e-3)) < 1
    ) * (grown > 0.05)
    white = radius < 0.72
    value = (
        0.05
        + 0.35 * white
        - 0.3 * folds
        - 0.5 * middle
        - 0.9 * ventricles
        + rng.normal(0, 0.02, x.shape)
    )
    place_of = rng.uniform(-0.4, 0.4, 2)
    lesion = np.hypot(x - place_of[0], y - place_of[1]) < 0.12
    value = np.where(lesion, 0.85, value)
    return np.where(radius < 1, np.clip(value, -1, 1), -1), lesion & (radius < 1)
