"""Radiomics of head and lesion, and how far generated slices or volumes are from real ones in them."""

from __future__ import annotations

import numpy as np

from medgen.evaluation import textures
from medgen.evaluation.distributions import DRAWS, FigureMaker, Measured
from medgen.evaluation.figures import Figure
from medgen.evaluation.heads import heads_of
from medgen.evaluation.samples import Samples

SECTION = "radiomics"
HEAD_BIN, LESION_BIN = 2 / 32, 2 / 16
"""Widths of the bins of grey levels, of images in [-1, 1]; a lesion has few pixels, and so gets few
bins.
"""
TOGETHER = {2: 64, 3: 1}
"""Slices and volumes that are worked on at a time: the matrices of 64 slices take some 50 MB."""
FAMILIES = ("first order", "GLCM", "GLSZM")


def figures_of(
    real: Samples, other: Samples, synthetic: Samples, *, draws: int = DRAWS, seed: int = 0
) -> list[Figure]:
    """Return the mean distance of the features of each family, of heads and of lesions."""
    maker = FigureMaker(SECTION, draws, seed)
    sets = (real, other, synthetic)
    figures = []
    for region in ("head", "lesion"):
        measured = [features_of(each.images, rois_of(each, region), _bin(region)) for each in sets]
        for family in FAMILIES:
            columns = [
                Measured(values[:, _columns(family, real.images.shape[1])], each.people)
                for values, each in zip(measured, sets, strict=True)
            ]
            figures.append(maker.distance(f"{family} of the {region}", *columns))
    return figures


def rois_of(samples: Samples, region: str) -> np.ndarray:
    """Return the pixels of a region: `head` without its lesions, or `lesion`."""
    return samples.masks if region == "lesion" else heads_of(samples.images) & ~samples.masks


def features_of(images: np.ndarray, rois: np.ndarray, width: float) -> np.ndarray:
    """Return float64 `[sample, channel * feature]`, NaN where a region is too small to have one.

    images: `[sample, channel, *space]` in [-1, 1]. rois: bool `[sample, *space]`. width: of a bin.
    """
    columns, size = [], TOGETHER[rois.ndim - 1]
    for channel in range(images.shape[1]):
        parts = [
            _some(images[start : start + size, channel], rois[start : start + size], width)
            for start in range(0, len(images), size)
        ]
        columns.append(np.concatenate(parts) if parts else np.zeros((0, len(NAMES))))
    return np.concatenate(columns, 1)


def _some(images: np.ndarray, rois: np.ndarray, width: float) -> np.ndarray:
    bins = textures.binned(images, rois, width)
    return np.stack([values for _, _, values in _named(images, rois, bins)], 1)


def _named(
    images: np.ndarray, rois: np.ndarray, bins: np.ndarray
) -> list[tuple[str, str, np.ndarray]]:
    families = (
        textures.first_order(images, rois, bins),
        textures.co_occurrence(bins),
        textures.size_zones(bins),
    )
    return [
        (family, name, values)
        for family, all_of in zip(FAMILIES, families, strict=True)
        for name, values in all_of
    ]


def _names() -> tuple[tuple[str, str], ...]:
    one = np.zeros((1, 2, 2), np.float32), np.ones((1, 2, 2), bool), np.ones((1, 2, 2), np.int64)
    return tuple((family, name) for family, name, _ in _named(*one))


NAMES = _names()
"""The family and the name of each feature, in order."""


def _columns(family: str, channels: int) -> np.ndarray:
    own = [place for place, (of, _) in enumerate(NAMES) if of == family]
    return np.add.outer(np.arange(channels) * len(NAMES), own).ravel()


def _bin(region: str) -> float:
    return LESION_BIN if region == "lesion" else HEAD_BIN
