"""Sources of masks: a model of masks, one that makes images with them, or a folder. All return masks
on the grid of the images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from medgen import seeds
from medgen.data.grid import Grid
from medgen.data.store.mask_grid import place
from medgen.generation.combination import (
    require_mask_model,
    require_same_masks,
    require_same_slices,
)
from medgen.generation.model import Model, draw_samples
from medgen.generation.numbers import EVERYWHERE, Range, Row, Table, restricted

FAINT = -0.7
"""What a model of masks gives for a point that may be of a lesion, at least; background is -1."""
BLUR = 1.0
"""Standard deviation, points, of the Gaussian that weighs the surroundings of a point."""


class Masks(NamedTuple):
    """Masks of a block. values: `[batch, channel, *space]`, -1 or +1. faults: per index, of each
    attempt. numbers: per index, that the model was given; empty if it was given none.

    images: `[batch, channel, *space]`, what the image model made together with the masks; None if it
    is given them.
    """

    values: Tensor
    faults: list[list[str]]
    numbers: Sequence[Row] = ()
    images: Tensor | None = None

    def known(self, place: int) -> Row:
        """Return the numbers of one mask."""
        return self.numbers[place] if self.numbers else {}

    def put(self, place: int, fault: str, again: Masks) -> Masks:
        """Return them with one mask drawn again. fault: of the one before, unless it has another."""
        where, faults, numbers = torch.tensor([place]), list(self.faults), list(self.numbers)
        *before, last = faults[place]
        faults[place] = [*before, last or fault, *again.faults[0]]
        numbers[place : place + 1] = again.numbers
        images = self.images
        if images is not None and again.images is not None:
            images = images.index_copy(0, where, again.images)
        return Masks(self.values.index_copy(0, where, again.values), faults, numbers, images)


class MaskSource(Protocol):
    """A source of masks."""

    names: tuple[str, ...]
    grid: Grid
    numbers: Table | None
    """Of training slices, from which the masks' numbers are drawn; None without."""

    def block(self, indices: Sequence[int]) -> Masks:
        """Return masks of consecutive indices, a function of the indices alone."""

    def again(self, index: int, attempt: int) -> Masks:
        """Give the mask of one index at a later attempt."""

    def identity(self) -> Mapping[str, Any]:
        """Return everything that decides the masks besides their indices."""


class DrawnMasks(ABC):
    """Masks drawn from noise, and again if empty, larger than `max_area` (share), or outside."""

    names: tuple[str, ...]
    grid: Grid
    numbers: Table | None
    purpose: str
    """Names the streams of noise; those of numbers follow."""

    def __init__(
        self, model: Model, seed: int, steps: int | None, max_area: float, max_attempts: int
    ):
        self.model, self.seed, self.steps = model, seed, steps
        self.max_area, self.max_attempts = max_area, max_attempts

    def block(self, indices: Sequence[int]) -> Masks:
        """Draw every index, then invalid ones again, those of an attempt together."""
        drawn = self._draw(indices, 1)
        for attempt in range(2, self.max_attempts + 1):
            invalid = [number for number, each in enumerate(drawn.faults) if each[-1]]
            if not invalid:
                break
            again = self._draw([indices[number] for number in invalid], attempt)
            drawn.values[invalid] = again.values
            if drawn.images is not None and again.images is not None:
                drawn.images[invalid] = again.images
            for number, faults in zip(invalid, again.faults, strict=True):
                drawn.faults[number] += faults
        return drawn._replace(numbers=self._numbers(indices, map(len, drawn.faults)))

    def again(self, index: int, attempt: int) -> Masks:
        """Draw one index alone, so that no other pair depends on it."""
        return self._draw([index], attempt)._replace(numbers=self._numbers([index], [attempt]))

    def fault(self, mask: Tensor) -> str:
        """Return `empty` or `too_large`, or an empty string for a valid mask."""
        area = float((mask > 0).any(0).float().mean())
        return "" if 0 < area <= self.max_area else "too_large" if area else "empty"

    def identity(self) -> Mapping[str, Any]:
        """Return the limits."""
        return {"max_area": self.max_area, "max_attempts": self.max_attempts}

    @abstractmethod
    def _draw(self, indices: Sequence[int], attempt: int) -> Masks:
        """Draw masks on the grid of the images, with the fault of each."""

    def _samples(self, indices: Sequence[int], attempt: int) -> Tensor:
        """Sample the model given no channels, each index from a stream of its own."""
        generators = [seeds.stream(self.seed, self.purpose, index, attempt) for index in indices]
        condition = torch.empty(len(indices), 0, *self.model.grid.shape)
        numbers = self._numbers(indices, [attempt] * len(indices))
        return draw_samples(self.model, condition, generators, self.steps, numbers)

    def _numbers(self, indices: Sequence[int], attempts: Iterable[int]) -> list[Row]:
        """Draw what the model is given for each index at its attempt; nothing if it is given none."""
        if self.numbers is None:
            return []
        return [
            self.numbers.drawn(self.seed, f"{self.purpose} numbers", *each)
            for each in zip(indices, attempts, strict=True)
        ]


class ModelMasks(DrawnMasks):
    """Masks of a model that makes nothing else.

    image: the image model, outside of whose slices lesions would be cut off. within: positions in
    the head to draw from, where the model is given any.
    """

    purpose = "mask"

    def __init__(
        self,
        model: Model,
        seed: int,
        steps: int | None,
        max_area: float,
        max_attempts: int,
        image: Model | None = None,
        within: Range = EVERYWHERE,
    ):
        require_mask_model(model)
        super().__init__(model, seed, steps, max_area, max_attempts)
        self.names = model.parts.mode.images
        if image is not None:
            require_same_masks(self.names, image)
            require_same_slices(model, image)
        self.grid = (image or model).grid
        self.numbers = None
        if model.numbers is not None:
            shown = image.numbers.positions if image and image.numbers else EVERYWHERE
            self.numbers = restricted(model.numbers, "--seg-model", within, shown)

    def identity(self) -> Mapping[str, Any]:
        """Return a hash of the model's weights, how its masks are cut, and the limits."""
        cut = {"mask_cut": f"lesion_size, above {FAINT}, blur {BLUR}"} if self._sized else {}
        return {"seg_model": self.model.digest, **cut, **super().identity()}

    @property
    def _sized(self) -> bool:
        """True if the model is given how large its lesions are."""
        return self.numbers is not None and "lesion_size" in self.model.parts.mode.scalars

    def _draw(self, indices: Sequence[int], attempt: int) -> Masks:
        values, faults = [], []
        for each in self._attempt(indices, attempt):
            placed = place(each.numpy() > 0, self.model.grid.spacing, self.grid)
            values.append(torch.from_numpy(placed.masks).float() * 2 - 1)
            faults.append(["outside" if placed.outside else self.fault(values[-1])])
        return Masks(torch.stack(values), faults)

    def _attempt(self, indices: Sequence[int], attempt: int) -> Tensor:
        """Draw masks on the model's own grid, of the size that the model was given, if it was."""
        drawn = self._samples(indices, attempt)
        if not self._sized:
            return _cut(drawn)
        rows = self._numbers(indices, [attempt] * len(indices))
        cell = math.prod(self.model.grid.spacing)
        sizes = [max(1, round(row["lesion_size"] / cell)) for row in rows]
        return torch.stack([surest(*each) for each in zip(drawn, sizes, strict=True)])


class JointMasks(DrawnMasks):
    """Masks of a model that makes images together with them, so that both are drawn again with an
    invalid mask.

    within: positions in the head to draw from, where the model is given any.
    """

    purpose = "image"

    def __init__(
        self,
        model: Model,
        seed: int,
        steps: int | None,
        max_area: float,
        max_attempts: int,
        within: Range = EVERYWHERE,
    ):
        super().__init__(model, seed, steps, max_area, max_attempts)
        made, known = model.parts.mode.images, model.numbers
        self._own = [number for number, name in enumerate(made) if name in model.masks]
        self.names, self.grid = tuple(made[number] for number in self._own), model.grid
        self.numbers = None if known is None else restricted(known, "--image-model", within)

    def _draw(self, indices: Sequence[int], attempt: int) -> Masks:
        images = self._samples(indices, attempt)
        values = _cut(images[:, self._own])
        return Masks(values, [[self.fault(each)] for each in values], images=images)


def surest(drawn: Tensor, count: int) -> Tensor:
    """Set the `count` points of what a model of masks gives, `[mask, *space]` in [-1, 1], that are
    marked most clearly to +1, the others to -1.

    A model of few steps draws small lesions too faintly to be above 0, and large ones too wide. A
    point is as clear as its surroundings are on the whole, so that outlines are smooth.
    """
    values = drawn.double().numpy()
    around = np.stack([gaussian_filter(each, BLUR, mode="nearest") for each in values])
    clear = np.where(values > FAINT, around, -np.inf)
    chosen = np.zeros(clear.size, bool)
    chosen[np.argsort(-clear, axis=None, kind="stable")[:count]] = True
    marked = chosen.reshape(clear.shape) & (values > FAINT)
    return torch.where(torch.from_numpy(marked), 1.0, -1.0)


def _cut(drawn: Tensor) -> Tensor:
    """Set what a model of masks gives to -1 or +1."""
    return torch.where(drawn > 0, 1.0, -1.0)
