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
SLOPES = "slopes"
"""Of the fit in checkpoints."""
LEAST_SPREAD = 1e-3
"""Standard deviation of a channel that is constant, so that nothing is divided by 0."""
LEAST_SHARE = 1e-6
"""Mean square below which a condition's channel has hardly a slope."""


class WaveletSpace(Space):
    """See `Space`. The channels: averages of the coarsest level, its differences, and then those of
    each finer level, of which the pixels of a block are channels.

    slopes: `[channel, condition]`, by how much a channel grows with the same channel of a condition, such
    as an image of tissues; None before they are fitted.
    """

    slopes: Tensor | None = None

    def __init__(
        self, mode: Mode, levels: int, axes: int, device: torch.device, fits: bool = False
    ):
        """fits: fit samples by what is given."""
        self.levels, self.device, self.fits, block = levels, device, fits, 2 ** (axes * levels)
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
        """Fit each channel of the samples by the same of each condition, over the training set.

        The mean is that of a sample whose conditions are 0, the deviation that from the fit.
        """
        count, products = 0, torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in batches:
            z = analyse(batch.image, self.levels)
            conditions = self._alike(batch.condition) if self.fits else []
            values = [torch.ones_like(z), *conditions, z]
            rows = torch.stack(values).double().movedim(2, 0).flatten(2)  # [channel, value, ...]
            products = products + rows @ rows.mT
            count += rows.shape[2]
        known, wanted = products[:, :-1, :-1] / count, products[:, :-1, -1] / count
        ridge = LEAST_SHARE * torch.ones_like(known[0, 0])
        ridge[0] = 0  # of the mean
        factors = torch.linalg.solve(known + ridge.diag(), wanted)
        left = products[:, -1, -1] / count - (factors * wanted).sum(1)
        deviation = left.clamp_min(LEAST_SPREAD**2).sqrt()
        self.moments = factors[:, 0].float(), deviation.float()
        self.slopes = factors[:, 1:].float() if self.fits and factors.shape[1] > 1 else None

    def moments_given(self, given: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.moments is None or self.slopes is None:
            return self.moments
        mean, deviation = self.moments
        conditions = synthesise(given[:, : self.condition_channels].float(), self.levels)
        guess = mean.view(-1, *(1,) * (given.ndim - 2))
        for slope, z in zip(self.slopes.mT, self._alike(conditions), strict=True):
            guess = guess + slope.view(-1, *(1,) * (given.ndim - 2)) * z
        return guess, deviation

    def _alike(self, conditions: Tensor) -> list[Tensor]:
        """Return each condition of `[batch, condition, *space]` transformed as if it were every image."""
        size = conditions.shape[2:]
        images = self.channels // 2 ** (len(size) * self.levels)
        return [
            analyse(each.unsqueeze(1).expand(-1, images, *size), self.levels)
            for each in conditions.unbind(1)
        ]

    def state_dict(self) -> dict[str, Any]:
        if self.moments is None:
            return {}
        state = dict(zip(NAMES, self.moments, strict=True))
        return state if self.slopes is None else {**state, SLOPES: self.slopes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:  # checkpoints from before the measures have none
            mean, deviation = (state[name].to(self.device) for name in NAMES)
            self.moments = mean, deviation
        if SLOPES in state:  # and those from before the fit no slopes
            self.slopes = state[SLOPES].to(self.device)


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
