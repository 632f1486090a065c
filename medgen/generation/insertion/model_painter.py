"""A painter that has learned what lesions look like: a model of mode `insert`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medgen import seeds
from medgen.api.numbers import RING
from medgen.config.registry import Registry
from medgen.data.grid import Grid
from medgen.data.store.crop_targets import grown
from medgen.errors import CheckpointError, Problem
from medgen.generation.insertion.painter import NONE, Array, Crop, Numbers, paints_volumes
from medgen.generation.model import Model, load_model
from medgen.generation.numbers import DIGITS, as_given
from medgen.training import lesion_region, sampling

CONTRAST = "contrast"
"""Name of the number that says how much brighter than its surroundings a lesion is."""
BLOCK = 8
"""Slices that are painted at a time, of one lesion; a volume, which is a whole lesion, is painted alone."""


class ModelPainter:
    """See `Painter`. margin: mm around a mask that its regions had in training.

    As many crops are painted at a time as a block has, always, as convolutions differ in the last
    bit between batch sizes.
    """

    def __init__(self, model: Model, steps: int | None = None):
        self.model, self.steps = model, steps
        mode = model.parts.mode
        self.channels, self.margin = mode.images, mode.margin
        self.grid: Grid | None = model.grid
        self._block = 1 if paints_volumes(self) else BLOCK

    def numbers(self, crops: Sequence[Crop], seed: int) -> Numbers:
        """Draw those of a training crop whose lesion is about as large, in its largest slice, and of
        about the contrast of the real one, which a real mask keeps: a ring differs from a disk of
        its size.
        """
        table = self.model.numbers
        if table is None:
            return {}
        cell = crops[0].spacing
        size = max(np.count_nonzero(crop.mask) for crop in crops) * math.prod(cell)
        own = donor_contrast(crops)
        kept = {} if own is None or CONTRAST not in table.names else {CONTRAST: own}
        return table.near({"lesion_size": size, **kept}).drawn(seed, "lesion numbers") | kept

    def paint(
        self, crops: Sequence[Crop], seeds: Sequence[int], numbers: Numbers = NONE
    ) -> list[Array]:
        """Paint float32 `[channel, *size]` in [0, 1] for each crop, by the crop, its seed and the
        numbers alone.

        A model of few patients paints what it has not seen fainter than it was asked to. What a
        crop lacks of the contrast is asked for as well when it is painted again, of the same noise.
        """
        made = self._painted(crops, seeds, [numbers] * len(crops))
        if CONTRAST not in numbers:
            return made
        wanted = numbers[CONTRAST]
        asked = [
            {**numbers, CONTRAST: wanted + lacking(crop, image, wanted)}
            for crop, image in zip(crops, made, strict=True)
        ]
        return self._painted(crops, seeds, asked)

    def _painted(
        self, crops: Sequence[Crop], seeds: Sequence[int], numbers: Sequence[Numbers]
    ) -> list[Array]:
        made: list[Array] = []
        for at in range(0, len(crops), self._block):
            some = slice(at, at + self._block)
            made += self._paint(crops[some], seeds[some], numbers[some])
        return made

    def _paint(
        self, crops: Sequence[Crop], own: Sequence[int], numbers: Sequence[Numbers]
    ) -> list[Array]:
        """Paint up to a block of crops; the last again and again in the places that are left."""
        (mode, space, strategy, network), device = self.model.parts, self.model.device
        filled = [min(place, len(crops) - 1) for place in range(self._block)]
        images = np.stack([np.asarray(crops[place].image, np.float32) for place in filled])
        image = torch.from_numpy(images).to(device) * 2 - 1
        condition = torch.cat([marked(crops[place]) for place in filled]).to(device)
        streams = [seeds.stream(own[place], "paint") for place in filled]
        draw = sampling.noise(streams, space.shape(condition.shape[2:]), device)
        given = lesion_region.given(mode, space, image, condition)
        scalars = as_given([numbers[place] for place in filled], mode.scalars, device)
        with sampling.autocast(device, self.model.recipe.training.precision):
            made = sampling.sample(
                strategy,
                space,
                network,
                condition,
                draw,
                self.steps,
                given=given,
                numbers=scalars,
            )
        return list((made[: len(crops)].float().cpu().numpy() + 1) / 2)


def donor_contrast(crops: Sequence[Crop]) -> float | None:
    """Return the contrast of the real lesion whose mask crops have, one or its slices, in the
    number's unit; None if the mask is no real one, or nothing of its scan lies around it.
    """
    within, beside = list[Array](), list[Array]()
    for crop in crops:
        if crop.donor is None:
            return None
        image, clear = crop.donor.image[0], crop.donor.region
        within.append(image[crop.mask])
        beside.append(image[grown(crop.mask, crop.spacing, RING) & clear & ~crop.mask])
    one, two = np.concatenate(within), np.concatenate(beside)
    return round(2 * float(one.mean() - two.mean()), DIGITS) if len(one) and len(two) else None


def lacking(crop: Crop, image: Array, wanted: float) -> float:
    """Return what an image `[channel, *size]` in [0, 1] lacks of a contrast, in the number's unit;
    0 where it shows no lesion, or nothing around it. It is measured as `slice_numbers` does.
    """
    around = grown(crop.mask, crop.spacing, RING) & ~crop.mask
    if not (crop.mask.any() and around.any()):
        return 0.0
    return wanted - 2 * float(image[0][crop.mask].mean() - image[0][around].mean())


def marked(crop: Crop) -> Tensor:
    """Return the masks of a crop as the model knows masks, `[1, mask, *size]`; see `Mode.margin`."""
    parts = crop.mask[None] if crop.parts is None else crop.parts
    values = np.where(parts, 1, np.where(crop.region, 0, -1))
    return torch.from_numpy(values.astype(np.float32))[None]


def open_painter(
    path: Path,
    steps: int | None = None,
    registry: Registry | None = None,
    device: torch.device | None = None,
) -> ModelPainter:
    """Open a checkpoint of mode `insert`, with its averaged weights. Raises CheckpointError, also
    for other modes.

    steps: of sampling; the strategy's own number if None.
    """
    model = load_model(path, registry, device)
    if not model.parts.mode.margin:
        what = (
            f"is a model of mode {model.recipe.names['mode']}, which paints no lesions into scans"
        )
        raise CheckpointError(Problem(path, what, "Give a model of mode insert, or `paste`"))
    return ModelPainter(model, steps)
