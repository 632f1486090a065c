"""Intensities within heads of slices or volumes: histogram, spectrum, sharpness and noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from scipy import ndimage

BANDS = 16
"""Rings, or shells, of equal width of the spectrum, up to the Nyquist frequency of a side."""
QUANTILES = np.linspace(0.05, 0.95, 19)
SMALL = 1e-6


def distance(places: Sequence[np.ndarray]) -> np.ndarray:
    """Return the length of the vectors whose components lie on a grid, `[*space]`."""
    return np.asarray(reduce(np.hypot, np.meshgrid(*places, indexing="ij", sparse=True)))


def quantiles(images: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Return `[sample, channel * 19]`: quantiles of the head's values. Without a head, -1.

    W1 of two histograms is the mean distance of their quantiles; a slice's histogram counts once.
    """
    rows = [
        np.quantile(image[:, head], QUANTILES, axis=1).T.ravel()
        if head.any()
        else np.full(image.shape[0] * 19, -1.0)
        for image, head in zip(images, heads, strict=True)
    ]
    return np.array(rows)


def spectrum(images: np.ndarray) -> np.ndarray:
    """Return `[sample, channel * band]`: log10 of mean power in rings or shells of the Fourier
    transform.
    """
    space = tuple(range(2, images.ndim))
    power = np.abs(np.fft.fftn(images + 1.0, axes=space)) ** 2 / np.prod(images.shape[2:])
    frequencies = [np.fft.fftfreq(side) for side in images.shape[2:]]
    ring = (distance(frequencies) * 2 * BANDS).astype(np.int64)
    flat, ring = power.reshape(len(images) * images.shape[1], -1), ring.ravel()
    bands = np.stack(
        [flat[:, ring == band].mean(1) for band in range(BANDS) if (ring == band).any()], 1
    )
    return np.log10(bands + SMALL).reshape(len(images), -1)


def sharpness(images: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Return `[sample, channel]`: mean gradient inside the head, in deviations of its values."""
    slopes = reduce(np.hypot, np.gradient(images, axis=tuple(range(2, images.ndim))))
    mean = each_of(within(images, heads), images)
    deviation = np.sqrt(within((images - mean) ** 2, heads))
    return np.asarray(within(slopes, _eroded(heads)) / np.maximum(deviation, SMALL))


def noise(images: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Return `[sample, channel]`: deviation of the noise in the head (Immerkaer 1996, equation 5).

    The difference of two Laplacians is blind to edges that are straight, not to texture, which real
    slices have too. Of volumes in their axial slices.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    kernel = kernel.reshape(1, 1, 3, 3, *(1,) * (images.ndim - 4))
    response = np.abs(ndimage.convolve(images, kernel, mode="nearest"))
    return np.asarray(np.sqrt(np.pi / 2) / 6 * within(response, _eroded(heads)))


def _eroded(heads: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.binary_erosion(heads, np.ones((1, *(3,) * (heads.ndim - 1)))))


def count(heads: np.ndarray) -> np.ndarray:
    """Return the pixels of each head, `[sample]`."""
    return np.asarray(heads.sum(tuple(range(1, heads.ndim))))


def each_of(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return values `[sample, channel]` so that they count for each pixel of images."""
    return values.reshape(*values.shape, *(1,) * (images.ndim - 2))


def within(values: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Return the mean of each channel in the head, `[sample, channel]`; 0 without one."""
    space = "hwd"[: heads.ndim - 1]
    total = np.einsum(f"nc{space},n{space}->nc", values, heads.astype(values.dtype))
    return np.asarray(total / np.maximum(count(heads), 1)[:, None])
