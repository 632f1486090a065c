"""The extractor of radiomics features; it computes on the CPU, whatever the device."""

from __future__ import annotations

import hashlib

import numpy as np

from medgen.api.interfaces import Extractor
from medgen.evaluation.heads import heads_of
from medgen.evaluation.radiomics import NAMES, features_of

FORMAT = 1
"""Raise it with any change of what a feature is."""
LIMIT = 10.0
"""Deviations at which a feature is cut off, as the higher moments of a spoilt image exceed all
others.
"""


class RadiomicsExtractor(Extractor):
    """Features in standard deviations of the real images that `fit` has seen; before it, as is."""

    def __init__(self, bin_width: float):
        self.bin_width = bin_width
        self.hash = hashlib.sha256(repr((FORMAT, bin_width, LIMIT, NAMES)).encode()).hexdigest()
        self._mean: np.ndarray | float = 0.0
        self._deviation: np.ndarray | float = 1.0
        self._limit = np.inf

    def fit(self, images: np.ndarray, people: np.ndarray, position: np.ndarray, seed: int) -> None:
        raw = self._raw(images)
        self._mean, deviation = raw.mean(0), raw.std(0)
        self._deviation = np.where(deviation > 1e-9 * (1 + np.abs(self._mean)), deviation, 1.0)
        self._limit = LIMIT

    def __call__(self, images: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (self._raw(images) - self._mean) / self._deviation
        return scaled.clip(-self._limit, self._limit).astype(np.float32)

    def _raw(self, images: np.ndarray) -> np.ndarray:
        """Return features of heads, or of whole slices without one; 0 where all values are equal."""
        heads = heads_of(images)
        heads[~heads.any((1, 2))] = True
        return np.asarray(np.nan_to_num(features_of(images, heads, self.bin_width), nan=0.0))
