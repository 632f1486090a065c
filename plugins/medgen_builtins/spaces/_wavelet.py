"""The Haar wavelet transform, and the space of its coefficients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medgen import Draws, Mode, Space
from medgen_builtins.spaces.space_to_depth import fold, unfold

ROOT = math.sqrt(0.5)
"""Weight of each of two neighbours in a sum or a difference, for transforms that keep lengths."""


class WaveletSpace(Space):
    """See `Space`. The channels: averages of the coarsest level, its differences, and then those of
    each finer level, of which the pixels of a block are channels.
    """

    def __init__(self, mode: Mode, levels: int, axes: int):
        self.levels, block = levels, 2 ** (axes * levels)
        self.channels, self.condition_channels = mode.channels * block, len(mode.condition) * block

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        return (self.channels, *(length // 2**self.levels for length in size))

    def prepare(self, image: Tensor) -> Tensor:
        return image

    def encode(self, stored: Tensor, draws: Draws) -> Tensor:
        return analyse(stored, self.levels)

    def condition(self, condition: Tensor) -> Tensor:
        return analyse(condition, self.levels)

    def decode(self, z: Tensor) -> Tensor:
        return synthesise(z, self.levels)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the space has no state."""


def analyse(x: Tensor, levels: int) -> Tensor:
    """Transform `[batch, channel, *space]` to `[batch, channel * 2^(axes levels), *space /
    2^levels]`.
    """
    if not levels:
        return x
    average, *differences = _split(x)
    finer = fold(torch.cat(differences, 1), 2 ** (levels - 1))
    return torch.cat([analyse(average, levels - 1), finer], 1)


def synthesise(z: Tensor, levels: int) -> Tensor:
    """Invert `analyse`."""
    if not levels:
        return z
    bands = 2 ** (z.ndim - 2)
    averages = z.shape[1] // bands  # all channels of the coarser levels
    average = synthesise(z[:, :averages], levels - 1)
    finer = unfold(z[:, averages:], 2 ** (levels - 1))
    return _joined([average, *finer.chunk(bands - 1, 1)])


def _split(x: Tensor) -> list[Tensor]:
    """Return the `2^axes` bands of a level, each `[batch, channel, *space / 2]`, averages first."""
    bands = [x]
    for axis in range(2, x.ndim):
        even, odd = ((slice(None),) * axis + (slice(first, None, 2),) for first in (0, 1))
        pairs = [(each[even], each[odd]) for each in bands]
        bands = [band * ROOT for one, two in pairs for band in (one + two, one - two)]
    return bands


def _joined(bands: Sequence[Tensor]) -> Tensor:
    """Invert `_split`."""
    for axis in reversed(range(2, bands[0].ndim)):
        pairs = zip(bands[::2], bands[1::2], strict=True)
        bands = [
            torch.stack([low + high, low - high], axis + 1).flatten(axis, axis + 1) * ROOT
            for low, high in pairs
        ]
    return bands[0]
