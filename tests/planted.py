"""What may be done to a training slice to hide that it is one, as issue 12 lists it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

Image = np.ndarray
Rng = np.random.Generator


def transformed(
    image: Image, degrees: float = 0.0, zoom: float = 1.0, shift: Image | None = None
) -> Image:
    """Rotate around the middle, zoom and shift (px) a slice in [-1, 1], linearly interpolated."""
    angle, middle = np.deg2rad(degrees), (np.array(image.shape) - 1) / 2
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    offset = middle - matrix @ (middle + (np.zeros(2) if shift is None else shift))
    return ndimage.affine_transform(image, matrix, offset, order=1, cval=-1.0)


def gamma(image: Image, power: float) -> Image:
    """Raise brightness, 0 to 1, to a power."""
    return ((image + 1) / 2) ** power * 2 - 1


def with_noise(image: Image, rng: Rng) -> Image:
    """Add noise of 2 % of the range."""
    return np.clip(image + rng.normal(0, 0.04, image.shape), -1, 1)


def everything(image: Image, rng: Rng) -> Image:
    """All of it at once."""
    turned = transformed(image, rng.uniform(-10, 10), rng.uniform(0.9, 1.1), rng.uniform(-4, 4, 2))
    return with_noise(gamma(turned, rng.uniform(0.8, 1.25))[::-1], rng)


PLANTED: dict[str, Callable[[Image, Rng], Image]] = {
    "exact": lambda image, rng: image,
    "flipped left to right": lambda image, rng: image[::-1],
    "flipped up to down": lambda image, rng: image[:, ::-1],
    "shifted 4 px": lambda image, rng: transformed(image, shift=rng.integers(-4, 5, 2)),
    "shifted by parts of px": lambda image, rng: transformed(image, shift=rng.uniform(-4, 4, 2)),
    "intensity +-10 %": lambda image, rng: np.clip((image + 1) * rng.choice([0.9, 1.1]) - 1, -1, 1),
    "rotated 10 degrees": lambda image, rng: transformed(
        image, degrees=rng.choice([-1, 1]) * rng.uniform(5, 10)
    ),
    "zoomed 0.9": lambda image, rng: transformed(image, zoom=rng.uniform(0.9, 1)),
    "zoomed 1.1": lambda image, rng: transformed(image, zoom=rng.uniform(1, 1.1)),
    "gamma 0.8": lambda image, rng: gamma(image, 0.8),
    "gamma 1.25": lambda image, rng: gamma(image, 1.25),
    "noise 2 %": with_noise,
    "all at once": everything,
}
