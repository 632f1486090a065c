"""Sources of masks: a model or a folder. Both return masks on the grid of the images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
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


class Masks(NamedTuple):
    """Masks of a block. values: `[batch, channel, *space]`, -1 or +1. faults: per index, of each
    attempt. numbers: per index, that the model was given; empty if it was given none.
    """

    values: Tensor
    faults: list[list[str]]
    numbers: Sequence[Row] = ()

    def known(self, place: int) -> Row:
        """Return the numbers of one mask."""
        return self.numbers[place] if self.numbers else {}


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


class ModelMasks:
    """Masks sampled from a model. Invalid masks are drawn again: empty, larger than `max_area`
    (share), or outside.

    image: the image model, outside of whose slices lesions would be cut off. within: positions in
    the head to draw from, where the model is given any.
    """

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
        self.names = model.parts.mode.images
        if image is not None:
            require_same_masks(self.names, image)
            require_same_slices(model, image)
        self.model, self.seed, self.steps = model, seed, steps
        self.max_area, self.max_attempts = max_area, max_attempts
        self.grid = (image or model).grid
        self.numbers: Table | None = None
        if model.numbers is not None:
            shown = image.numbers.positions if image and image.numbers else EVERYWHERE
            self.numbers = restricted(model.numbers, "--seg-model", within, shown)

    def block(self, indices: Sequence[int]) -> Masks:
        """Draw every index, then invalid ones again; each attempt computes the whole block."""
        values, first = self._draw(indices, 1)
        faults = [[fault] for fault in first]
        for attempt in range(2, self.max_attempts + 1):
            invalid = [number for number, each in enumerate(faults) if each[-1]]
            if not invalid:
                break
            again, found = self._draw(indices, attempt, invalid)
            values[invalid] = again
            for number, fault in zip(invalid, found, strict=True):
                faults[number].append(fault)
        return Masks(values, faults, self._numbers(indices, map(len, faults)))

    def again(self, index: int, attempt: int) -> Masks:
        """Draw one index alone, so that no other pair depends on it."""
        values, faults = self._draw([index], attempt)
        return Masks(values, [faults], self._numbers([index], [attempt]))

    def fault(self, mask: Tensor) -> str:
        """Return `empty` or `too_large`, or an empty string for a valid mask."""
        area = float((mask > 0).any(0).float().mean())
        return "" if 0 < area <= self.max_area else "too_large" if area else "empty"

    def identity(self) -> Mapping[str, Any]:
        """Return a hash of the model's weights, and the limits."""
        return {
            "seg_model": self.model.digest,
            "max_area": self.max_area,
            "max_attempts": self.max_attempts,
        }

    def _draw(
        self, indices: Sequence[int], attempt: int, wanted: Sequence[int] | None = None
    ) -> tuple[Tensor, list[str]]:
        """Draw masks on the grid of the images, with the fault of each. wanted: positions in the
        block; None: all.
        """
        drawn = self._attempt(indices, attempt)
        values, faults = [], []
        for each in drawn if wanted is None else drawn[list(wanted)]:
            placed = place(each.numpy() > 0, self.model.grid.spacing, self.grid)
            values.append(torch.from_numpy(placed.masks).float() * 2 - 1)
            faults.append("outside" if placed.outside else self.fault(values[-1]))
        return torch.stack(values), faults

    def _attempt(self, indices: Sequence[int], attempt: int) -> Tensor:
        generators = [seeds.stream(self.seed, "mask", index, attempt) for index in indices]
        condition = torch.empty(len(indices), 0, *self.model.grid.shape)
        numbers = self._numbers(indices, [attempt] * len(indices))
        drawn = draw_samples(self.model, condition, generators, self.steps, numbers)
        return torch.where(drawn > 0, 1.0, -1.0)

    def _numbers(self, indices: Sequence[int], attempts: Iterable[int]) -> list[Row]:
        """Draw what the model is given for each index at its attempt; nothing if it is given none."""
        if self.numbers is None:
            return []
        return [
            self.numbers.drawn(self.seed, "mask numbers", *each)
            for each in zip(indices, attempts, strict=True)
        ]
