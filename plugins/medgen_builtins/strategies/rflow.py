"""Rectified flow (Liu et al. 2023; Esser et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from medgen import (
    Problem,
    Recipe,
    Strategy,
    StrategySettings,
    between,
    diffusion_metrics,
    field,
    ge,
    gt,
    hookimpl,
    settings,
)
from medgen.api.values import Better
from medgen_builtins.strategies._guidance import guidance_field

medgen_api = 1


@settings
class Rflow(StrategySettings):
    """Rectified flow: straight lines from data to noise, a loss on velocity (Liu et al. 2023)."""

    time: Literal["uniform", "logit-normal", "shifted"] = field(
        "logit-normal", help="distribution of t in 0..1 in training"
    )
    logit_mean: float = field(0.0, help="mean of logit(t) for logit-normal; above 0: more noise")
    logit_std: float = field(
        1.0, help="standard deviation of logit(t) for logit-normal", check=gt(0)
    )
    shift: float = field(3.0, help="factor of sigma/alpha of a uniform t, for shifted", check=gt(0))
    prediction: Literal["velocity", "x0", "residual"] = field(
        "velocity",
        help="output of the network; x0 learns faster, velocity is better in the end; residual: what a linear guess"
        " of x0 from each channel lacks, for spaces wavelet and latent",
    )
    t_min: float = field(
        0.05,
        help="lower bound of t in the velocity (x0 - xt) / max(t, t_min), for predictions x0 and residual",
        check=between(1e-6, 1),
    )
    sampler: Literal["dpm_solver", "euler", "heun"] = field(
        "dpm_solver",
        help="sampling method: euler loses 6 to 9% of the spread of detail in 25 steps, heun evaluates twice per step",
    )
    sampling_steps: int = field(25, help="sampling steps", check=between(1, 10**6))
    churn: float = field(
        0.0,
        help="noise that sampling adds and removes again, so that later steps correct errors of earlier ones: the sum over"
        " all steps, each as a share of what is there; 0: none",
        check=ge(0),
    )
    guidance: float = guidance_field()

    output = "prediction"

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if self.prediction == "residual" and recipe.space is not None and not recipe.space.measures:
            space = f"space.{recipe.names['space']}"
            what = f'got "residual", which needs the spread of channels, and {space} does not measure it'
            fix = "Use space=wavelet or space=latent, or another prediction"
            yield Problem("strategy.rflow.prediction", what, fix)

    def metrics(self, recipe: Recipe) -> dict[str, Better]:
        return diffusion_metrics()

    def build(self) -> Strategy:
        from medgen_builtins.strategies._rflow import RflowStrategy, Times

        times = Times(self.time, self.logit_mean, self.logit_std, self.shift)
        sampling = (self.sampler, self.sampling_steps, self.churn)
        made = RflowStrategy(times, self.prediction, self.t_min, *sampling)
        made.guidance = self.guidance
        return made


@hookimpl
def medgen_strategies() -> dict[str, type]:
    return {"rflow": Rflow}
