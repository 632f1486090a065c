"""Rectified flow (Liu et al. 2023; Esser et al. 2024), as a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medgen import TIME_SCALE, Draws, Noisy, Prediction
from medgen.api.values import DrawNoise, Predict
from medgen_builtins.strategies import _preconditioning, _samplers, _schedules
from medgen_builtins.strategies._diffusion import Diffusion

SAMPLERS = {"euler": _samplers.euler, "heun": _samplers.heun}
"""By the names that the setting `sampler` knows, beside dpm_solver."""
OF_X0 = ("x0", "residual")
"""Predictions that are read as x0, from which the velocity follows."""


class Times(NamedTuple):
    """Distribution of t in training; see the settings `Rflow`."""

    time: str
    logit_mean: float
    logit_std: float
    shift: float


class RflowStrategy(Diffusion):
    """See `DiffusionStrategy`. xt = (1 - t) x0 + t epsilon, t in 0..1 (the network's over 1000)."""

    def __init__(
        self,
        times: Times,
        prediction: str,
        t_min: float,
        sampler: str,
        sampling_steps: int,
        churn: float,
    ):
        self.distribution, self.prediction, self.t_min, self.churn = times, prediction, t_min, churn
        self.sampler, self.sampling_steps = sampler, sampling_steps
        self.network_outputs = 2 if prediction == "residual" else 1

    def draw(self, generator: torch.Generator, batch_size: int, shape: Sequence[int]) -> Draws:
        """Draw times from the recipe's distribution, and noise."""
        t = self._times(generator, batch_size)
        noise = torch.randn(batch_size, *shape, generator=generator, device=generator.device)
        return Draws(t * TIME_SCALE, noise)

    def corrupt(self, x0: Tensor, draws: Draws) -> Noisy:
        """Return xt on the line from x0 to the noise; the target is its velocity, x0 - epsilon."""
        x0, noise = x0.float(), draws.noise.float()
        t, divisor = self._at(draws.t, x0.ndim)
        xt = (1 - t) * x0 + t * noise
        # with x0, the target is divided as the prediction is, else a perfect x0 would have a loss below t_min
        target = t / divisor * (x0 - noise) if self.prediction in OF_X0 else x0 - noise
        snr = ((1 - t) / t.clamp(min=1e-6)) ** 2  # finite at t = 0 too
        return Noisy(xt, draws.t, target, x0, snr.flatten(), (divisor**2).flatten())

    def network_input(self, xt: Tensor, t: Tensor, given: Tensor | None = None) -> Tensor:
        """Return xt; where the residual is predicted, each channel with mean 0 and variance 1."""
        if self.prediction != "residual":
            return xt
        sigma, _ = self._at(t, xt.ndim)
        return _preconditioning.network_input(xt.float(), 1 - sigma, sigma, self._moments(given))

    def read(
        self, output: Tensor, xt: Tensor, t: Tensor, given: Tensor | None = None
    ) -> Prediction:
        """Return the velocity and x0 = xt + t velocity, from what is predicted."""
        output, xt = output.float(), xt.float()
        sigma, divisor = self._at(t, xt.ndim)
        if self.prediction == "residual":
            moments = self._moments(given)
            output = _preconditioning.x0(output, xt, 1 - sigma, sigma, moments)
        if self.prediction in OF_X0:
            return Prediction((output - xt) / divisor, output)
        return Prediction(output, xt + sigma * output)

    def sample(self, predict: Predict, noise: Tensor, steps: int, draw: DrawNoise) -> Tensor:
        """Turn noise into x0 in `steps` steps; adds further noise with `churn` alone."""
        churn = _samplers.Churn.spread(self.churn, steps, draw)
        if self.sampler == "dpm_solver":
            return _samplers.dpm_solver(predict, noise, self.times(steps), self.level, churn)
        return SAMPLERS[self.sampler](predict, noise, self.times(steps), churn)

    def times(self, steps: int) -> list[float]:
        """Return the sampler's times, from 1000 to 0."""
        ratios = _schedules.balanced_ratios(steps)
        times: list[float] = (TIME_SCALE / (1 + 1 / ratios)).flip(0).tolist()
        return times

    def level(self, t: float) -> tuple[float, float]:
        """Return alpha and sigma at t in 0..1000."""
        return 1 - t / TIME_SCALE, t / TIME_SCALE

    def _moments(self, given: Tensor | None) -> _preconditioning.Moments:
        return self.space.moments if given is None else self.space.moments_given(given)

    def _at(self, t: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
        """Return t in 0..1, and dx0/dvelocity, t except below `t_min`; each `[batch, 1, ...]`."""
        t = (t.float() / TIME_SCALE).view(-1, *(1,) * (ndim - 1))
        return t, t.clamp(min=self.t_min) if self.prediction in OF_X0 else t

    def _times(self, generator: torch.Generator, batch_size: int) -> Tensor:
        """Draw times `[batch]` in 0..1."""
        chosen, device = self.distribution, generator.device
        if chosen.time == "logit-normal":  # Esser et al. 2024, eq. 19
            normal = torch.randn(batch_size, generator=generator, device=device)
            return torch.sigmoid(chosen.logit_mean + chosen.logit_std * normal)
        t = torch.rand(batch_size, generator=generator, device=device)
        if chosen.time == "shifted":  # Esser et al. 2024, eq. 23, shift = sqrt(m/n)
            t = chosen.shift * t / (1 + (chosen.shift - 1) * t)
        return t
