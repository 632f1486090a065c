"""The Haar wavelet transform, and the space of its coefficients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medgen import Batch, Draws, Mode, Space
from medgen_builtins.spaces.space_to_depth import fold, unfold

ROOT = math.sqrt(0.5)
"""Weight of each of two neighbours in a sum or a difference, for transforms that keep lengths."""
NAMES = ("mean", "deviation")
"""Of the two moments in checkpoints."""
LEAST_SPREAD = 1e-3
"""Standard deviation of a channel that is constant, so that nothing is divided by 0."""


class WaveletSpace(Space):
    """See `Space`. The channels: averages of the coarsest level, its differences, and then those of
    each finer level, of which the pixels of a block are channels.
    """

    def __init__(self, mode: Mode, levels: int, axes: int, device: torch.device):
        self.levels, self.device, block = levels, device, 2 ** (axes * levels)
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

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Measure mean and standard deviation of each channel over the training set."""
        count, sums = 0, torch.zeros(2, self.channels, dtype=torch.float64, device=self.device)
        for batch in batches:
            z = analyse(batch.image, self.levels).double().transpose(0, 1).flatten(1)
            sums += torch.stack([z.sum(1), z.square().sum(1)])
            count += z.shape[1]
        mean, square = sums / count
        deviation = (square - mean**2).clamp_min(LEAST_SPREAD**2).sqrt()
        self.moments = mean.float(), deviation.float()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.moments is None else dict(zip(NAMES, self.moments, strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:  # checkpoints from before the measures have none
            mean, deviation = (state[name].to(self.device) for name in NAMES)
            self.moments = mean, deviation


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
