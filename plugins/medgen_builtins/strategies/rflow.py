"""Rectified flow (Liu et al. 2023; Esser et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from medgen import (
    DiffusionStrategy,
    Draws,
    Noisy,
    Prediction,
    StrategySettings,
    between,
    diffusion_metrics,
    field,
    gt,
    hookimpl,
    settings,
)
from medgen.api.values import TIME_SCALE

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medgen.api.interfaces import LossFunction, Space
    from medgen.api.recipe import Recipe
    from medgen.api.values import Better, DrawNoise, Mode, Predict
    from medgen.training.objective import Objective

medgen_api = 1


@settings
class Rflow(StrategySettings):
    """Rectified flow: straight lines from data to noise (Liu et al. 2023), the loss on their velocity."""

    time: Literal["uniform", "logit-normal", "shifted"] = field(
        "logit-normal", help="distribution of t in 0..1 in training"
    )
    logit_mean: float = field(0.0, help="mean of logit(t) for logit-normal; above 0: more noise")
    logit_std: float = field(1.0, help="standard deviation of logit(t) for logit-normal", check=gt(0))
    shift: float = field(3.0, help="factor of sigma/alpha of a uniform t, for shifted", check=gt(0))
    prediction: Literal["velocity", "x0"] = field(
        "velocity", help="output of the network; x0 learns faster, velocity is better in the end"
    )
    t_min: float = field(
        0.05,
        help="lower bound of t in the velocity (x0 - xt) / max(t, t_min), for prediction x0",
        check=between(1e-6, 1),
    )
    sampler: Literal["euler", "heun"] = field(
        "euler", help="sampling method; heun evaluates the network twice per step"
    )
    sampling_steps: int = field(25, help="sampling steps", check=between(1, 10**6))

    def metrics(self, recipe: Recipe) -> dict[str, Better]:
        return diffusion_metrics()

    def build(self) -> RflowStrategy:
        return RflowStrategy(self)


class RflowStrategy(DiffusionStrategy):
    """See `DiffusionStrategy`. xt = (1 - t) x0 + t epsilon with t in 0..1, a thousandth of the network's t."""

    def __init__(self, options: Rflow):
        self.options, self.prediction, self.t_min = options, options.prediction, options.t_min
        self.sampling_steps = options.sampling_steps

    def turns(
        self, mode: Mode, space: Space, network: nn.Module, losses: Mapping[str, LossFunction], device: torch.device
    ) -> Sequence[Objective]:
        """Return one turn, the network's."""
        from medgen.training.objective import Objective

        return [Objective(mode, space, self, network, losses)]

    def draw(self, generator: torch.Generator, batch_size: int, shape: Sequence[int]) -> Draws:
        """Draw times from the recipe's distribution, and noise."""
        import torch

        t = self._times(generator, batch_size)
        noise = torch.randn(batch_size, *shape, generator=generator, device=generator.device)
        return Draws(t * TIME_SCALE, noise)

    def corrupt(self, x0: Tensor, draws: Draws) -> Noisy:
        """Return xt on the line from x0 to the noise, and the line's velocity x0 - epsilon as the target."""
        x0, noise = x0.float(), draws.noise.float()
        t, divisor = self._at(draws.t, x0.ndim)
        xt = (1 - t) * x0 + t * noise
        # with x0, the target is divided as the prediction is, else a perfect x0 would have a loss below t_min
        target = x0 - noise if self.prediction == "velocity" else t / divisor * (x0 - noise)
        snr = ((1 - t) / t.clamp(min=1e-6)) ** 2  # finite at t = 0 too
        return Noisy(xt, draws.t, target, x0, snr.flatten(), (divisor**2).flatten())

    def read(self, output: Tensor, xt: Tensor, t: Tensor) -> Prediction:
        """Return the predicted velocity and x0 = xt + t velocity, from whichever of the two the network predicts."""
        output, xt = output.float(), xt.float()
        _, divisor = self._at(t, xt.ndim)
        if self.prediction == "velocity":
            return Prediction(output, xt + divisor * output)
        return Prediction((output - xt) / divisor, output)

    def sample(self, predict: Predict, noise: Tensor, steps: int, draw: DrawNoise) -> Tensor:
        """Turn noise into x0 in `steps` steps; adds no further noise."""
        from medgen_builtins.strategies import _samplers

        solve = _samplers.heun if self.options.sampler == "heun" else _samplers.euler
        return solve(predict, noise, self.times(steps))

    def times(self, steps: int) -> list[float]:
        """Return the sampler's times, from 1000 to 0."""
        from medgen_builtins.strategies import _schedules

        ratios = _schedules.balanced_ratios(steps)
        times: list[float] = (TIME_SCALE / (1 + 1 / ratios)).flip(0).tolist()
        return times

    def _at(self, t: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
        """Return t in 0..1 and dx0/dvelocity, t except below `t_min`; each `[batch, 1, ...]` with `ndim` axes."""
        t = (t.float() / TIME_SCALE).view(-1, *(1,) * (ndim - 1))
        return t, t if self.prediction == "velocity" else t.clamp(min=self.t_min)

    def _times(self, generator: torch.Generator, batch_size: int) -> Tensor:
        """Draw times `[batch]` in 0..1."""
        import torch

        options, device = self.options, generator.device
        if options.time == "logit-normal":  # Esser et al. 2024, eq. 19
            normal = torch.randn(batch_size, generator=generator, device=device)
            return torch.sigmoid(options.logit_mean + options.logit_std * normal)
        t = torch.rand(batch_size, generator=generator, device=device)
        if options.time == "shifted":  # Esser et al. 2024, eq. 23, shift = sqrt(m/n)
            t = options.shift * t / (1 + (options.shift - 1) * t)
        return t


@hookimpl
def medgen_strategies() -> dict[str, type]:
    return {"rflow": Rflow}
