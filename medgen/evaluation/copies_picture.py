"""`audit.png`: pairs beside the training slices or volumes they are most like; of slices also the
difference of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medgen import pictures
from medgen.evaluation.copies import Judge, Verdict
from medgen.evaluation.head_views import SIDE, views
from medgen.evaluation.pair_files import Block
from medgen.evaluation.registration import Placement, warped
from medgen.evaluation.sample_search import SliceSearch

Array = np.ndarray[Any, np.dtype[Any]]


def save(judge: Judge, blocks: Sequence[Block], path: Path) -> Path:
    """Write a row per pair: as it is, as it lies on its training slice, that slice, the difference.
    Of a volume three slices, and the same of its training volume.
    """
    return pictures.save(pictures.grid([_row(judge, block) for block in blocks]), path)


def _row(judge: Judge, block: Block) -> list[Array]:
    verdict = judge.judge(block.images, block.masks)[0]
    mine, mask = block.images[0].mean(0), block.masks[0]
    if mine.ndim == 3:
        return _volume_row(judge, verdict, mine, mask)
    if verdict.why == "lesion":
        return _lesion_row(judge, verdict, mine, mask)
    other = judge.training.images[verdict.row].mean(0)
    laid = _laid(judge, block)
    return [
        pictures.tile(mine, [mask]),
        pictures.tile(laid),
        pictures.tile(other),
        pictures.tile(_less(laid, other)),
    ]


def _volume_row(judge: Judge, verdict: Verdict, mine: Array, mask: Array) -> list[Array]:
    """Return three slices of each volume: through a copied lesion, or else through the middle."""
    training = judge.training
    if verdict.why == "lesion":
        other, there = (each[verdict.lesion_row] for each in (training.images, training.masks))
        return [*pictures.tiles(mine, [mask]), *pictures.tiles(other.mean(0), [there])]
    return [*pictures.tiles(mine), *pictures.tiles(training.images[verdict.row].mean(0))]


def _lesion_row(judge: Judge, verdict: Verdict, mine: Array, mask: Array) -> list[Array]:
    """Return a copied lesion, in its new head and its own; their heads have nothing to subtract."""
    other, there = (
        judge.training.images[verdict.lesion_row].mean(0),
        judge.training.masks[verdict.lesion_row],
    )
    return [
        pictures.tile(mine, [mask]),
        pictures.tile(mine),
        pictures.tile(other, [there]),
        pictures.tile(other),
    ]


def _laid(judge: Judge, block: Block) -> Array:
    """Return the pair turned, flipped, zoomed and shifted onto its training slice."""
    assert isinstance(judge.search, SliceSearch)  # volumes have rows of their own
    at = judge.search.finder.find(views(block.images)).at
    image = torch.from_numpy(block.images.mean(1, keepdims=True)) + 1
    placement = Placement(at.matrix, at.offset * (image.shape[-1] / SIDE))
    return np.asarray(warped(image, placement)[0, 0].numpy() - 1)


def _less(one: Array, other: Array) -> Array:
    """Return the difference, grey where none, once mean and contrast are made equal."""
    inside = other > -0.9
    scale = other[inside].std() / max(float(one[inside].std()), 1e-6) if inside.any() else 1.0
    shift = (other[inside] - one[inside] * scale).mean() if inside.any() else 0.0
    return np.asarray(np.where(inside, one * scale + shift - other, 0.0).clip(-1, 1))
