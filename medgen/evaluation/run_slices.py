"""The slices or volumes of a run, real or generated during it, as samples that can be measured."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medgen import seeds
from medgen.api.recipe import Run
from medgen.api.run_state import Slices
from medgen.api.values import Batch
from medgen.data.grid import Grid
from medgen.evaluation.samples import Samples
from medgen.training.lesion_masks import has_masks, lesion_masks, mask_channels

LIMIT = {2: 2000, 3: 100}
"""Slices, or volumes, of a split at most, drawn at random, so that they fit in memory."""


def numbers_of(run: Run, slices: Slices, lesions_only: bool = True) -> np.ndarray:
    """Return the numbers of the samples of a split to measure with, ascending: `LIMIT` at most.

    lesions_only: those with a lesion, where the mode has masks.
    """
    everything = np.arange(slices.size)
    if lesions_only and has_masks(run.mode, run.masks):
        everything = everything[slices.facts(everything).area > 0]
    order = torch.randperm(
        len(everything), generator=seeds.stream(run.recipe.run.seed, "evaluation/slices")
    )
    return np.sort(everything[order.numpy()[: LIMIT[run.recipe.data.axes]]])


def real(run: Run, slices: Slices, numbers: np.ndarray, where: str) -> Samples:
    """Read whole slices of a split. where: what a message calls them."""
    batch, facts = slices.whole(numbers), slices.facts(numbers)
    return _samples(run, slices, batch, facts.person, facts.position, where)


def generated(run: Run, slices: Slices, images: Tensor, condition: Tensor) -> Samples:
    """Take generated images and their conditions, `[n, channel, *space]` in [-1, 1], as samples of
    a person each.

    slices: whose conditions they are.
    """
    count = len(images)
    unknown = np.full(count, np.nan, np.float32)
    return _samples(run, slices, Batch(images, condition), np.arange(count), unknown, "generated")


def _samples(
    run: Run, slices: Slices, batch: Batch, people: np.ndarray, position: np.ndarray, where: str
) -> Samples:
    """Return the scans among the channels of a batch, with all its masks together."""
    image, condition = batch.image.float().cpu(), batch.condition.float().cpu()
    masks = lesion_masks(run.mode, run.masks, image, condition)
    own = [] if run.mode.pooled else mask_channels(run.mode.images, run.masks)
    scans = [channel for channel in range(image.shape[1]) if channel not in own]
    lesion = (
        torch.zeros(image.shape[0], *image.shape[2:], dtype=torch.bool)
        if masks is None
        else masks.any(1)
    )
    return Samples(
        images=image[:, scans].numpy(),
        masks=lesion.numpy(),
        people=people,
        position=position,
        names=tuple(f"{where} {number}" for number in range(len(image))),
        channels=tuple(run.mode.images[channel] for channel in scans),
        grid=_grid(run, tuple(image.shape[2:]), slices.spacing),
        where=where,
    )


def _grid(run: Run, shape: tuple[int, ...], spacing: float) -> Grid:
    if len(shape) == 3:
        return Grid.of_volumes(shape, spacing)
    return Grid.of_slices(shape[-1], spacing, run.recipe.data.axis)
