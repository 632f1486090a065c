"""Denoising diffusion (Ho et al. 2020), as a strategy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medgen import TIME_SCALE, Draws, Noisy, Prediction
from medgen.api.values import DrawNoise, Predict
from medgen_builtins.strategies import _samplers, _schedules
from medgen_builtins.strategies._diffusion import Diffusion

SAMPLERS = {"ddim": _samplers.ddim, "dpm_solver": _samplers.dpm_solver}
"""Those that add no noise, by the names that the setting `sampler` knows."""


class DdpmStrategy(Diffusion):
    """See `DiffusionStrategy`. Timestep k = 1..timesteps of the schedule is t = 1000 k / timesteps."""

    def __init__(self, betas: Tensor, prediction: str, sampler: str, sampling_steps: int):
        """betas: `[timesteps]` of the schedule, fp64."""
        self.prediction, self.sampler, self.sampling_steps = prediction, sampler, sampling_steps
        self.timesteps = len(betas)
        self._exact_levels = _schedules.levels(betas)
        self._levels = self._exact_levels.float()

    def to(self, device: torch.device) -> None:
        """Move the schedule."""
        self._levels = self._levels.to(device)

    def draw(self, generator: torch.Generator, batch_size: int, shape: Sequence[int]) -> Draws:
        """Draw timesteps, uniform on 1..timesteps, and noise."""
        device = generator.device
        k = torch.randint(1, self.timesteps + 1, (batch_size,), generator=generator, device=device)
        noise = torch.randn(batch_size, *shape, generator=generator, device=device)
        return Draws(k * (TIME_SCALE / self.timesteps), noise)

    def corrupt(self, x0: Tensor, draws: Draws) -> Noisy:
        """Apply xt = alpha x0 + sigma epsilon (Ho et al. 2020, eq. 4)."""
        x0, noise = x0.float(), draws.noise.float()
        alpha, sigma = self._at(draws.t, x0.ndim)
        target = self._target(x0, noise, alpha, sigma)
        snr = (alpha / sigma.clamp(min=1e-6)) ** 2  # finite at t = 0 too
        return Noisy(
            alpha * x0 + sigma * noise,
            draws.t,
            target,
            x0,
            snr.flatten(),
            self._gain(alpha, sigma).flatten(),
        )

    def read(
        self, output: Tensor, xt: Tensor, t: Tensor, given: Tensor | None = None
    ) -> Prediction:
        """Read the network's output as the prediction of the target, and compute x0 from it and xt."""
        output, xt = output.float(), xt.float()
        return Prediction(output, self._x0(output, xt, *self._at(t, xt.ndim)))

    def sample(self, predict: Predict, noise: Tensor, steps: int, draw: DrawNoise) -> Tensor:
        """Turn noise into x0 in `steps` steps, at most those of the schedule."""
        times = self.times(steps)
        if self.sampler == "ancestral":
            return _samplers.ancestral(predict, noise, times, self.level, draw)
        return SAMPLERS[self.sampler](predict, noise, times, self.level)

    def times(self, steps: int) -> list[float]:
        """Return the sampler's times, from noise to 0, all on the schedule."""
        alpha, sigma = self._exact_levels
        ratios = sigma / alpha
        if self.prediction == "epsilon":
            ratios = ratios[ratios < _schedules.MAX_RATIO]
        steps = min(steps, len(ratios) - 1)
        if self.sampler == "dpm_solver":
            wanted = _schedules.even_ratios(ratios[1].item(), ratios[-1].item(), steps)
        else:
            wanted = _schedules.balanced_ratios(steps)
        return [k * TIME_SCALE / self.timesteps for k in _schedules.positions(ratios, wanted)]

    def level(self, t: float) -> tuple[float, float]:
        """Return alpha and sigma at t in 0..1000."""
        alpha, sigma = self._exact_levels[:, round(t * self.timesteps / TIME_SCALE)].tolist()
        return alpha, sigma

    def _at(self, t: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma, each `[batch, 1, ...]` with `ndim` axes."""
        k = (t * (self.timesteps / TIME_SCALE)).round().long()
        alpha, sigma = self._levels.to(t.device)[:, k].view(2, -1, *(1,) * (ndim - 1))
        return alpha, sigma

    def _target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        # Salimans & Ho 2022, section 4
        return x0 if self.prediction == "x0" else alpha * noise - sigma * x0

    def _x0(self, output: Tensor, xt: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return (xt - sigma * output) / alpha
        return output if self.prediction == "x0" else alpha * xt - sigma * output

    def _gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return (dx0/dtarget)^2 of the formulas in `read`."""
        if self.prediction == "epsilon":
            return (sigma / alpha) ** 2
        return alpha**0 if self.prediction == "x0" else sigma**2
