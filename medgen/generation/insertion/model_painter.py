"""A painter that has learned what lesions look like: a model of mode `insert`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medgen import seeds
from medgen.config.registry import Registry
from medgen.data.grid import Grid
from medgen.errors import CheckpointError, Problem
from medgen.generation.insertion.painter import Array, Crop
from medgen.generation.model import Model, load_model
from medgen.training import lesion_region, sampling


class ModelPainter:
    """See `Painter`. margin: mm around a mask that its regions had in training.

    One crop is painted at a time, as convolutions differ in the last bit between batch sizes.
    """

    def __init__(self, model: Model, steps: int | None = None):
        self.model, self.steps = model, steps
        mode = model.parts.mode
        self.channels, self.margin = mode.images, mode.margin
        self.grid: Grid | None = model.grid

    def paint(self, crops: Sequence[Crop], seeds: Sequence[int]) -> list[Array]:
        """Paint float32 `[channel, *size]` in [0, 1] for each crop, by the crop and its seed alone."""
        return [self._paint(crop, seed) for crop, seed in zip(crops, seeds, strict=True)]

    def _paint(self, crop: Crop, seed: int) -> Array:
        (mode, space, strategy, network), device = self.model.parts, self.model.device
        image = torch.from_numpy(np.asarray(crop.image, np.float32))[None].to(device) * 2 - 1
        condition = marked(crop).to(device)
        draw = sampling.noise(
            [seeds.stream(seed, "paint")], space.shape(condition.shape[2:]), device
        )
        given = lesion_region.given(mode, space, image, condition)
        with sampling.autocast(device, self.model.recipe.training.precision):
            made = sampling.sample(
                strategy, space, network, condition, draw, self.steps, given=given
            )
        return np.asarray((made[0].float().cpu().numpy() + 1) / 2)


def marked(crop: Crop) -> Tensor:
    """Return the mask of a crop as the model knows masks, `[1, 1, *size]`; see `Mode.margin`."""
    values = np.where(crop.mask, 1, np.where(crop.region, 0, -1))
    return torch.from_numpy(values.astype(np.float32))[None, None]


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
