"""Samplers: noise to x0, written as the papers write them.

`times` falls from noise to 0, on the network's scale of 0..1000; each sampler takes len(times) - 1
steps. They read the clean sample alone from a prediction, so they work for whatever the network
puts out. `level(t)` is alpha and sigma of xt = alpha x0 + sigma epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from medgen import TIME_SCALE
from medgen.api.values import DrawNoise, Predict

Level = Callable[[float], tuple[float, float]]
CHURNED = (0.02 * TIME_SCALE, 0.9 * TIME_SCALE)
"""Between these times noise is added: above there is little else, below nothing would remove it."""
MOST = math.sqrt(2) - 1
"""Largest share of the noise that is added at a step: as much as is there already, in variance."""


class Churn(NamedTuple):
    """Noise that is added in sampling and removed again (Karras et al. 2022, Algorithm 2)."""

    share: float
    """Of sigma, that is t / (1 - t), added at each step between the times `CHURNED`."""
    draw: DrawNoise

    @classmethod
    def spread(cls, amount: float, steps: int, draw: DrawNoise) -> Churn:
        """Spread the sum of the shares, S_churn there, over the steps, at most `MOST` for each."""
        return cls(min(amount / steps, MOST), draw)

    def at(self, t: float) -> float:
        """Return the share of sigma to add at t."""
        return self.share if CHURNED[0] < t < CHURNED[1] else 0.0

    def stir(self, x: Tensor, t: float) -> tuple[Tensor, float]:
        """Return xt with more noise, and its time (lines 5 and 6 there)."""
        if (share := self.at(t)) == 0:
            return x, t
        sigma = t / (TIME_SCALE - t)
        raised = (1 + share) * sigma
        x = x * (1 + sigma) + math.sqrt(raised**2 - sigma**2) * self.draw()
        return x / (1 + raised), TIME_SCALE * raised / (1 + raised)


STILL = Churn(0.0, lambda: torch.zeros(()))
"""No noise added."""


def euler(predict: Predict, x: Tensor, times: Sequence[float], churn: Churn = STILL) -> Tensor:
    """Solve dx/dt = (xt - x0)/t by Euler (Liu et al. 2023, eq. 1). One evaluation per step."""
    for begin, s in pairwise(times):
        x, t = churn.stir(x, begin)
        x = x + (s - t) * (x - predict(x, t).x0) / t
    return x


def heun(predict: Predict, x: Tensor, times: Sequence[float], churn: Churn = STILL) -> Tensor:
    """Solve the same equation by Heun's method (Karras et al. 2022, Algorithm 1).

    Two evaluations per step, but one for the last, as the slope at 0 cannot be read from x0.
    """
    for begin, s in pairwise(times):
        x, t = churn.stir(x, begin)
        slope = (x - predict(x, t).x0) / t
        if s > 0:
            trial = x + (s - t) * slope
            slope = (slope + (trial - predict(trial, s).x0) / s) / 2
        x = x + (s - t) * slope
    return x


def ddim(predict: Predict, x: Tensor, times: Sequence[float], level: Level) -> Tensor:
    """Sample by DDIM (Song et al. 2021, eq. 12, sigma_t = 0). One evaluation per step."""
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = level(t), level(s)
        x0 = predict(x, t).x0
        epsilon = (x - alpha_t * x0) / sigma_t
        x = alpha_s * x0 + sigma_s * epsilon
    return x


def dpm_solver(
    predict: Predict,
    x: Tensor,
    times: Sequence[float],
    level: Level,
    churn: Churn = STILL,
) -> Tensor:
    """Sample by DPM-Solver++(2M) (Lu et al. 2022b, Algorithm 2). One evaluation per step.

    The step to 0 is infinite in the log-SNR and lands on x0, the first-order step's limit. The step from
    pure noise is infinite too, so that it and the one after are of first order. With churn a step goes
    past its end, and the noise added there brings it back; with a share of exp(h) - 1 this is
    SDE-DPM-Solver++(2M) of the same paper.
    """
    x0_before, h_before = None, math.inf
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = level(t), level(s)
        h = _half_log_snr(alpha_s, sigma_s) - _half_log_snr(alpha_t, sigma_t)
        x0, kept = predict(x, t).x0, 1 / (1 + churn.at(s))
        # h/(2 h_before) is the paper's 1/(2r)
        d = x0 if x0_before is None or h == math.inf else x0 + h / (2 * h_before) * (x0 - x0_before)
        x = sigma_s / sigma_t * kept * x + alpha_s * (1 - kept * math.exp(-h)) * d
        if kept < 1:
            x = x + sigma_s * math.sqrt(1 - kept**2) * churn.draw()
        x0_before, h_before = x0, h
    return x


def ancestral(
    predict: Predict, x: Tensor, times: Sequence[float], level: Level, draw: DrawNoise
) -> Tensor:
    """Sample by DDPM (Ho et al. 2020, eq. 7) with the posterior's variance, between any two times.

    One evaluation per step, and fresh noise for each but the last.
    """
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = level(t), level(s)
        beta = 1 - (alpha_t / alpha_s) ** 2  # alpha_bar_t = (1 - beta) alpha_bar_s
        x0 = predict(x, t).x0
        x = alpha_s * beta / sigma_t**2 * x0 + alpha_t / alpha_s * (sigma_s / sigma_t) ** 2 * x
        if s > 0:
            x = x + sigma_s / sigma_t * math.sqrt(beta) * draw()
    return x


def _half_log_snr(alpha: float, sigma: float) -> float:
    if alpha == 0:
        return -math.inf
    return math.log(alpha / sigma) if sigma else math.inf
