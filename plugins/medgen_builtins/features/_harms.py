"""Harm slices by known strengths, for a network to tell: scrambled anatomy, blur, noise.

Images are `[n, channel, height, width]` in [-1, 1], the background -1; strengths `[n]`. All
randomness comes from the generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

AIR = -0.98
"""Below it a pixel is background."""


def scrambled(x: Tensor, share: Tensor, scale: Tensor, generator: torch.Generator) -> Tensor:
    """Return heads of the same outline, spectrum and energy, in which `share` (0..1) of what is
    finer is noise.

    scale: standard deviation, px, of the Gaussian that divides fine from coarse. What is fine keeps
    its amplitudes and gets random phases (Theiler et al. 1992), for it is phase that tells folds
    and ventricles from mottle.
    """
    head = (x > AIR).to(x.dtype)
    mean = (x * head).sum((2, 3), keepdim=True) / head.sum((2, 3), keepdim=True).clamp(min=1)
    filled = torch.where(head > 0, x, mean)  # else the outline would be the largest detail
    coarse = blurred(filled, scale)
    fine = (filled - coarse) * head
    noise = torch.fft.fft2(torch.randn(x.shape, generator=generator))
    noise = (
        torch.fft.ifft2(torch.fft.fft2(fine).abs() * noise / noise.abs().clamp(min=1e-9)).real
        * head
    )
    noise = noise * (_energy(fine) / _energy(noise).clamp(min=1e-9)).sqrt()
    part = _each(share)
    return torch.where(
        head > 0, (coarse + (1 - part).sqrt() * fine + part.sqrt() * noise).clamp(-1, 1), x
    )


def blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Return images blurred by a Gaussian of `sigma` px, over edges as if they were joined."""
    rows, columns = (torch.fft.fftfreq(size) for size in x.shape[-2:])
    square = rows[:, None] ** 2 + columns[None] ** 2
    kept = torch.exp(-2 * (math.pi * _each(sigma)) ** 2 * square)
    out: Tensor = torch.fft.ifft2(torch.fft.fft2(x) * kept).real
    return out


def noisy(x: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
    """Return images with white noise of standard deviation `level`."""
    return x + _each(level) * torch.randn(x.shape, generator=generator)


def flipped(x: Tensor, which: Tensor, axis: int) -> Tensor:
    """Return images, of which those that are named (bool `[n]`) are flipped."""
    return torch.where(_each(which), x.flip(axis), x)


def strengths(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Return `[count]` from 0 to 1, in `share` of them above 0."""
    drawn = torch.rand(2, count, generator=generator)
    return drawn[0] * (drawn[1] < share)


def _energy(x: Tensor) -> Tensor:
    return x.square().sum((2, 3), keepdim=True)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
