"""Noise schedules and the times at which samplers stop, in float64 on the CPU.

Positions on a schedule are numbered as in Ho et al. 2020, with position 0 for the clean sample:
xt = alpha x0 + sigma epsilon, alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_BETA = 0.999
"""Nichol & Dhariwal 2021, section 3.2: a beta of 1 would leave nothing of x0 to predict."""
MAX_RATIO = math.exp(5.1)
"""sigma/alpha beyond which nothing is to be seen of x0, and an error of epsilon would be blown up
as many times (Lu et al. 2022a, section 6, end the cosine schedule there; the linear one ends there
by itself).
"""


def linear_betas(timesteps: int, start: float, end: float) -> Tensor:
    """Return `[timesteps]`, Ho et al. 2020, section 4. start, end: scaled as for 1000 timesteps."""
    betas = torch.linspace(start, end, timesteps, dtype=torch.float64)
    return (betas * 1000 / timesteps).clamp(max=MAX_BETA)


def cosine_betas(timesteps: int) -> Tensor:
    """Return `[timesteps]`, Nichol & Dhariwal 2021, eq. 17."""
    t = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=MAX_BETA)


def levels(betas: Tensor) -> Tensor:
    """Return `[2, timesteps + 1]`: alpha and sigma by position, from clean (1, 0) to noise."""
    alpha_bar = torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)])
    return torch.stack([alpha_bar.sqrt(), (1 - alpha_bar).sqrt()])


def balanced_ratios(steps: int) -> Tensor:
    """Return `[steps + 1]` ratios sigma/alpha, 0 to infinity, for Heun's and first-order samplers.

    For Gaussian data of standard deviation s, one Euler step from ratio a to b loses (a - b)^2 s^2
    / 2(s^2 + a^2)^2 of it. So what counts for features of size s is how dense the steps are in
    log(sigma/alpha) around log(s). This spread is densest near 0.2, with a long tail for the large
    features that noise hides last: 50 Euler steps lose 3 to 4 % for s from 0.1 to 1 (no spread can
    lose less than 2.5 % at any one s). Even steps in rectified flow's t lose 9 % at 0.1.
    """
    tau = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return tau / (5 * (1 - tau) ** 1.6)


def even_ratios(smallest: float, largest: float, steps: int) -> Tensor:
    """Return `[steps + 1]` ratios sigma/alpha, 0, then even in log-SNR (Lu et al. 2022b)."""
    largest = min(largest, MAX_RATIO)
    ratios = torch.linspace(math.log(smallest), math.log(largest), steps, dtype=torch.float64).exp()
    return torch.cat([ratios.new_zeros(1), ratios])


def positions(ratios: Tensor, wanted: Tensor) -> list[int]:
    """Return the positions nearest to the wanted ratios, from the last to 0, no two the same.

    ratios: `[last + 1]`, rising, of a schedule. wanted: `[steps + 1]`, rising, steps <= last; its
    ends are ignored.
    """
    last, steps = len(ratios) - 1, len(wanted) - 1
    index = torch.arange(steps + 1)
    nearest = torch.searchsorted((ratios[1:] + ratios[:-1]) / 2, wanted)
    distinct = (nearest - index).cummax(0).values + index
    distinct = distinct.minimum(last - steps + index)
    distinct[0], distinct[-1] = 0, last
    return distinct.flip(0).tolist()
