"""Preconditioning: a network puts out what a linear guess of x0 lacks (Karras et al. 2022, section 5).

xt = alpha x0 + sigma epsilon, of which each channel has a mean m and a standard deviation s; m may depend
on what is given. Where channels are the pixels of a block, a network that is hardly wider cannot carry all of them through,
and what it makes of little noise is blurred. A linear guess from the channel alone needs no network.
"""

from __future__ import annotations

import torch
from torch import Tensor

CAP = 0.3
"""Standard deviation of what is unknown of a channel once its neighbours are seen, at most: that of
averages, which differ much over a head, and little from one block to the next.
"""
MOST = 8.0
"""Of the logarithm by which a network changes a variance."""
RATE = 4.0
"""Factor from what a network puts out to that logarithm, which Adam's short steps would lower slowly in air."""
Moments = tuple[Tensor, Tensor] | None
"""Mean and standard deviation by channel or place, or a mean of each sample, as of `Space.moments_given`."""


def network_input(xt: Tensor, alpha: Tensor, sigma: Tensor, moments: Moments) -> Tensor:
    """Return xt with mean 0 and variance 1 in each channel: c_in of Karras et al. 2022, eq. 7.

    alpha, sigma: `[batch, 1, ...]`.
    """
    mean, deviation = _of(moments, xt)
    return (xt - alpha * mean) / torch.sqrt((alpha * deviation) ** 2 + sigma**2)


def x0(output: Tensor, xt: Tensor, alpha: Tensor, sigma: Tensor, moments: Moments) -> Tensor:
    """Return the linear guess m + c_skip (xt - alpha m), plus c_out times the output: eq. 7.

    output: `[batch, 2 * channel, *space]`, what is added, and 1 / `RATE` of the logarithm by which
    the channel's variance there differs from s^2, 0 at first: air is flat and cortex is not (as in
    Gaussian scale mixtures, Portilla et al. 2003). With that variance k^2, at most `CAP`^2, c_skip = alpha k^2 /
    (alpha^2 k^2 + sigma^2). c_out is the standard deviation of what the guess lacks without it.
    """
    mean, deviation = _of(moments, xt)
    added, change = output.chunk(2, dim=1)
    skip = _skip(alpha, sigma, (RATE * change).clamp(-MOST, MOST).exp() * deviation**2)
    usual = _skip(alpha, sigma, deviation**2)
    lacking = torch.sqrt(((1 - alpha * usual) * deviation) ** 2 + (sigma * usual) ** 2)
    return mean + skip * (xt - alpha * mean) + lacking * added


def _skip(alpha: Tensor, sigma: Tensor, variance: Tensor) -> Tensor:
    known = 1 / (1 / variance + 1 / CAP**2)
    return alpha * known / (alpha**2 * known + sigma**2)


def _of(moments: Moments, xt: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, each of the axes of a sample."""
    assert moments is not None  # the recipe was checked, and the space calibrated
    mean, deviation = (
        each.view(*each.shape, *(1,) * (xt.ndim - 1 - each.ndim)) for each in moments
    )
    return mean, deviation
