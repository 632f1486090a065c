"""Teach a network on real heads to tell a slice's place and what it is harmed by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from medgen import Extractor
from medgen.evaluation.network import Halvings, digest, made, parts, teach
from medgen_builtins.features import _harms as harm

RATE = 4e-3
SPREAD = 0.3
"""Of the place in the head and of strengths, 0 to 1, by which errors are divided."""
HARMED = 0.6
"""Share of the slices that have each harm."""
SCALES = (1.0, 4.0)
"""px; what is scrambled is finer than a Gaussian of one in this range."""
FLOOR = 0.1
"""Of the spread of a feature, as a share of the median one: what hardly ever varies must not
decide.
"""
FARTHEST = 5.0
"""Standard deviations at which a feature is cut, as the kernel takes the third power."""


class Harms(NamedTuple):
    """Slices of a step, and the most that they are harmed by; see the settings `Taught`."""

    batch_size: int
    noise: float
    blur: float


class TaughtExtractor(Extractor):
    hash = ""

    def __init__(self, steps: int, harms: Harms, device: torch.device):
        self._steps, self._harms, self._device = steps, harms, device

    def fit(self, images: np.ndarray, people: np.ndarray, position: np.ndarray, seed: int) -> None:
        self._network = made(images.shape[1], 5, seed, self._device)
        batches = _Batches(self._harms, images, position, seed, self._device)
        teach(self._network, lambda: batches.loss(self._network), self._steps, RATE)
        found = self._pooled(images)
        self._mean, spread = found.mean(axis=0), found.std(axis=0)
        self._spread = (spread**2 + (FLOOR * float(sorted(spread)[len(spread) // 2])) ** 2) ** 0.5
        self.hash = digest(self._network.state_dict())

    def __call__(self, images: np.ndarray) -> np.ndarray:
        found: np.ndarray = ((self._pooled(images) - self._mean) / self._spread).clip(
            -FARTHEST, FARTHEST
        )
        return found

    def _pooled(self, images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found = [self._network.pooled(part)[-1] for part in parts(images, self._device)]
        return np.asarray(torch.cat(found).cpu().numpy(), np.float32)


class _Batches:
    """Draws slices and harms them; knows the answers."""

    def __init__(
        self,
        harms: Harms,
        images: np.ndarray,
        position: np.ndarray,
        seed: int,
        device: torch.device,
    ):
        self._most, self._device = harms, device
        self._generator = torch.Generator().manual_seed(seed)
        self._images, self._position = torch.from_numpy(images), torch.from_numpy(position)

    def loss(self, network: Halvings) -> Tensor:
        """Return the sum of losses: place and strengths, squared over their spread; up from down."""
        rows = torch.randint(len(self._images), (self._most.batch_size,), generator=self._generator)
        x, down, harms = self._harmed(self._images[rows])
        place, turned, *told = network(x.to(self._device)).cpu().unbind(1)
        position = self._position[rows]
        known = ~position.isnan()
        off = torch.where(known, place - (position.nan_to_num(0.5) - 0.5) / SPREAD, 0)
        loss = off.square().sum() / known.sum().clamp(min=1) + cross_entropy(turned, down.float())
        return loss + (torch.stack(told) - harms / SPREAD).square().mean(1).sum()

    def _harmed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slices turned and harmed, which are upside down, and `[3, n]` strengths, 0 to 1."""
        count, generator = len(x), self._generator
        down, mirrored = torch.rand(2, count, generator=generator) < 0.5
        x = harm.flipped(harm.flipped(x, down, -1), mirrored, -2)
        share, blur, noise = (harm.strengths(count, HARMED, generator) for _ in range(3))
        scale = SCALES[0] + (SCALES[1] - SCALES[0]) * torch.rand(count, generator=generator)
        x = harm.blurred(harm.scrambled(x, share, scale, generator), blur * self._most.blur)
        return (
            harm.noisy(x, noise * self._most.noise, generator),
            down,
            torch.stack([share, blur, noise]),
        )
