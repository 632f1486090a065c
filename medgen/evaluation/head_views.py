"""Slices as the search for copies sees them: the head's pose, rotation-invariant profile, detail.

All filters are products with matrices: at 64 px that is ten times as fast as a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

SIDE = 64
"""px of the slices that are compared; 2 to 3 mm each, which shows sulci and ventricles and averages
noise.
"""
RADII, ANGLES, FREQUENCIES = 16, 64, 12
"""The polar grid of a profile, and how many angular frequencies of it are kept besides the mean."""
INNERMOST, OUTERMOST = 0.12, 1.3
"""Radii of the polar grid, in root-mean-square radii of the head: a disk ends at sqrt(2)."""
CHUNK = 512
"""Slices prepared at a time."""


class Views(NamedTuple):
    """Prepared slices. centre: `[n, 2]` (row, column), px from the middle of the square. radius:
    `[n]`, rms, px.

    profile: complex `[n, RADII, 1 + FREQUENCIES]`, of unit norm. coarse: `[n, 1, SIDE / 2, SIDE /
    2]` and fine: `[n, 1, SIDE, SIDE]`, detail of two bands, float16. inside: bool `[n, 1, SIDE,
    SIDE]`, the head without its rim.
    """

    centre: Tensor
    radius: Tensor
    profile: Tensor
    coarse: Tensor
    fine: Tensor
    inside: Tensor

    def take(self, rows: Tensor | slice) -> Views:
        """Return the views of some slices."""
        return Views(*(each[rows] for each in self))

    def __len__(self) -> int:
        """Count slices."""
        return len(self.radius)

    @property
    def area(self) -> Tensor:
        """Return px of the head without its rim, `[n]` float32."""
        return self.inside.flatten(1).sum(1).float()


def views(images: Array) -> Views:
    """Prepare slices `[n, channel, height, width]` in [-1, 1]; the channels count as their mean."""
    made = [_views(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
    return concatenated(made)


def concatenated(parts: Sequence[Views]) -> Views:
    """Join views of several sets of slices."""
    return Views(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _views(images: Array) -> Views:
    pixels = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).mean(1, keepdim=True)
    height, width = pixels.shape[2:]
    small = _resize(height, SIDE) @ (pixels + 1) @ _resize(width, SIDE).T
    level, weight = _levels(small)
    centre, radius = _pose(weight[:, 0])
    inside = blurred(weight, 2.0) > 0.9
    low = _detail(level, weight, 2.0, 8.0)
    coarse = (
        _resize(SIDE, SIDE // 2) @ _detail(level, weight, 2.0, 6.0) @ _resize(SIDE, SIDE // 2).T
    )
    fine = _detail(level, weight, 1.0, 3.0)
    return Views(centre, radius, _profile(low, centre, radius), coarse.half(), fine.half(), inside)


def _levels(small: Tensor) -> tuple[Tensor, Tensor]:
    """Scale slices to background 0, bright tissue 1; also the head's weight. `[n, 1, SIDE, SIDE]`.

    The weight saturates early, so that gamma and contrast hardly move the pose.
    """
    smooth = blurred(small, 1.0)
    border = torch.cat(
        [smooth[:, 0, 0], smooth[:, 0, -1], smooth[:, 0, :, 0], smooth[:, 0, :, -1]], 1
    )
    dark = border.median(1).values.view(-1, 1, 1, 1)
    bright = smooth.flatten(1).kthvalue(int(0.97 * SIDE * SIDE), 1).values.view(-1, 1, 1, 1)
    span = (bright - dark).clamp_min(1e-3)
    return (small - dark) / span, ((smooth - dark - 0.08 * span) / (0.2 * span)).clamp(0, 1)


def _pose(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return centre of mass and rms radius of the head, px."""
    at = _places(SIDE).double()
    weight = weight.double()
    total = weight.sum((1, 2)).clamp_min(1e-6)
    rows, columns = weight.sum(2), weight.sum(1)
    row, column = (rows @ at) / total, (columns @ at) / total
    spread = (rows @ at**2 + columns @ at**2) / total - row**2 - column**2
    return torch.stack([row, column], 1).float(), spread.clamp_min(1.0).sqrt().float()


def _detail(level: Tensor, weight: Tensor, narrow: float, wide: float) -> Tensor:
    """Band-pass slices (difference of Gaussians, px), over local contrast, so that gamma cancels.

    The averages are over the head alone (normalised convolution, Knutsson and Westin, CVPR 1993):
    the edge between tissue and air, which all heads have, leaves nothing.
    """
    near, far = (
        blurred(level * weight, sigma) / blurred(weight, sigma).clamp_min(0.05)
        for sigma in (narrow, wide)
    )
    band = near - far
    power = blurred(band * band * weight, 2 * wide) / blurred(weight, 2 * wide).clamp_min(0.05)
    return band / (power.sqrt() + 0.02) * weight


def _profile(low: Tensor, centre: Tensor, radius: Tensor) -> Tensor:
    """Return the angular spectrum around the centre: a rotation is a phase, a flip the conjugate."""
    angle = torch.arange(ANGLES) * (2 * math.pi / ANGLES)
    shares = torch.linspace(INNERMOST, OUTERMOST, RADII)
    away = radius.view(-1, 1, 1) * shares.view(1, -1, 1)
    rows = centre[:, 0].view(-1, 1, 1) + away * torch.sin(angle)
    columns = centre[:, 1].view(-1, 1, 1) + away * torch.cos(angle)
    ring = F.grid_sample(low, torch.stack([columns, rows], -1) / (SIDE / 2), align_corners=False)[
        :, 0
    ]
    spectrum = torch.fft.rfft(ring * shares.sqrt().view(1, -1, 1), dim=2)[:, :, : 1 + FREQUENCIES]
    power = (spectrum.abs() ** 2 * twice()).sum((1, 2), keepdim=True)
    profile: Tensor = spectrum / power.sqrt().clamp_min(1e-6)
    return profile


def twice() -> Tensor:
    """Return how often each kept frequency counts in a sum over a real signal's whole spectrum."""
    return torch.tensor([1.0] + [2.0] * FREQUENCIES)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Filter square images `[n, 1, side, side]` by a Gaussian, sigma in px; edges are repeated."""
    kernel = _gaussian(images.shape[-1], sigma)
    return kernel @ images @ kernel.T


@lru_cache
def _gaussian(side: int, sigma: float) -> Tensor:
    """Return `[side, side]`: rows of Gaussians around each px, what falls off added to the edge."""
    reach = math.ceil(4 * sigma) + side
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).double() / sigma) ** 2)
    rows = torch.zeros(side, side, dtype=torch.float64)
    for row in range(side):
        rows[row].index_add_(
            0, (row + torch.arange(-reach, reach + 1)).clamp(0, side - 1), weights / weights.sum()
        )
    return rows.float()


@lru_cache
def _resize(source: int, side: int) -> Tensor:
    """Return `[side, source]`: an antialiased linear resize along one axis."""
    scale = max(1.0, source / side)
    middles = (torch.arange(side).double() + 0.5) * source / side - 0.5
    weights = (1 - (torch.arange(source) - middles[:, None]).abs() / scale).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).float()


def _places(side: int) -> Tensor:
    """Return px from the middle of the square, `[side]`."""
    return torch.arange(side).float() - (side - 1) / 2
