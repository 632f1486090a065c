"""Compare heads with the nearest real ones at the same height, and with their mirror images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter

from medgen import Extractor

AIR, RIM = -0.9, 1 / 64
"""Below it a pixel is background, and where its surroundings are, blurred by this share of the
width: noise in air.
"""
SCALES = (1 / 128, 1 / 64, 1 / 32)
"""Of the image's width, the standard deviation of the blur before heads are compared: fine and
coarse anatomy.
"""
SEVERAL = 10
"""Nearest real slices that are averaged."""
FEWEST = 12
"""Real slices at a height that tell what is usual there."""
PART = 128
"""Images at a time."""
FARTHEST = 5.0
"""Standard deviations at which a feature is cut, as the kernel takes the third power."""


class AtlasExtractor(Extractor):
    hash = ""

    def __init__(self, heights: int, most: int):
        self._heights, self._most = heights, most

    def fit(self, images: np.ndarray, people: np.ndarray, position: np.ndarray, seed: int) -> None:
        rows = np.sort(np.random.default_rng(seed).permutation(len(images))[: self._most])
        count = self._heights
        self._height = np.minimum(np.nan_to_num(position[rows]) * count, count - 1).astype(int)
        self._atlas = [_plain(images[rows], scale)[0] for scale in SCALES]
        found, height = self._measured(images[rows], people[rows, None] == people[rows][None])
        self._mean, self._spread = _by_height(found, height, count)
        parts = [np.ascontiguousarray(each).tobytes() for each in (*self._atlas, self._height)]
        self.hash = hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        found, height = self._measured(images)
        standard = (found - self._mean[height]) / self._spread[height]
        return np.asarray(standard.clip(-FARTHEST, FARTHEST), np.float32)

    def _measured(
        self, images: np.ndarray, own: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return features, `[n, 3 per scale and 1]`, and the nearest real slice's height, `[n]`.

        own: bool `[n, atlas]`, what an image is not compared with.
        """
        columns, energies = [], []
        for scale, atlas in zip(SCALES, self._atlas, strict=True):
            plain, energy = _plain(images, scale)
            found = np.concatenate([_likeness(part, atlas) for part in _parts(plain)])
            found = found if own is None else np.where(own, -1, found)
            best = np.sort(found, axis=1)[:, -SEVERAL:]
            columns += [best[:, -1], best.mean(axis=1)]
            columns.append(np.concatenate([_symmetry(part) for part in _parts(plain)]))
            energies.append(np.log(energy + 1e-6))
        return np.stack([*columns, energies[0] - energies[1]], axis=1), self._height[
            found.argmax(axis=1)
        ]


def _by_height(found: np.ndarray, height: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and spread of real slices, each `[heights, d]`; those of all where a height
    has too few.
    """
    mean, spread = (
        np.repeat(each[None], count, axis=0) for each in (found.mean(axis=0), found.std(axis=0))
    )
    for number in range(count):
        mine = found[height == number]
        if len(mine) >= FEWEST:
            mean[number], spread[number] = mine.mean(axis=0), mine.std(axis=0)
    return mean, spread + 1e-3


def _plain(images: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Heads `[n, c, h, w]`, blurred within their outline, of mean 0 there and of length 1, on as
    coarse a grid as does.

    scale: of the blur, as share of the width. Second: variance in the head before, `[n]`.
    """
    sigma = scale * images.shape[-1]
    rim = RIM * images.shape[-1]
    around = gaussian_filter(images, (0, 0, rim, rim))
    head = ((images > AIR) & (around > AIR + 0.1)).astype(np.float32)
    reach = (0, 0, sigma, sigma)
    soft = gaussian_filter(images * head, reach) / np.maximum(gaussian_filter(head, reach), 1e-3)
    step = max(1, int(sigma))
    soft, head = soft[..., ::step, ::step], head[..., ::step, ::step]
    count = np.maximum(head.sum((2, 3), keepdims=True), 1)
    plain = (soft - (soft * head).sum((2, 3), keepdims=True) / count) * head
    square = (plain**2).sum((1, 2, 3))
    length = np.maximum(np.sqrt(square), 1e-6)[:, None, None, None]
    return np.asarray(plain / length, np.float32), square / count.sum((1, 2, 3))


def _parts(plain: np.ndarray) -> Iterator[np.ndarray]:
    return (plain[start : start + PART] for start in range(0, len(plain), PART))


def _likeness(plain: np.ndarray, atlas: np.ndarray) -> np.ndarray:
    """Return `[n, atlas]`: correlation at the best of nine shifts by a pixel of the grid."""
    flat = atlas.reshape(len(atlas), -1).T
    shifts = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    found = [np.roll(plain, shift, (2, 3)).reshape(len(plain), -1) @ flat for shift in shifts]
    return np.asarray(np.max(found, axis=0))


def _symmetry(plain: np.ndarray) -> np.ndarray:
    """Return `[n]`: correlation with the mirror image at the best shift, as heads are off-centre."""
    reach = plain.shape[2] // 12
    mirrored = [np.roll(plain[:, :, ::-1], shift, 2) for shift in range(-reach, reach + 1)]
    return np.asarray(np.max([(plain * each).sum((1, 2, 3)) for each in mirrored], axis=0))
