"""Denoising diffusion (Ho et al. 2020)."""

from __future__ import annotations

from typing import Literal

from medgen import (
    Recipe,
    Strategy,
    StrategySettings,
    between,
    diffusion_metrics,
    field,
    gt,
    hookimpl,
    settings,
)
from medgen.api.values import Better
from medgen_builtins.strategies._guidance import guidance_field

medgen_api = 1


@settings
class Ddpm(StrategySettings):
    """Denoising diffusion on a discrete, variance-preserving schedule (Ho et al. 2020)."""

    schedule: Literal["linear", "cosine"] = field(
        "cosine", help="shape of alpha_bar over the timesteps"
    )
    prediction: Literal["epsilon", "x0", "velocity"] = field(
        "velocity", help="quantity that the network predicts"
    )
    timesteps: int = field(1000, help="timesteps of the schedule", check=between(2, 10**6))
    beta_start: float = field(
        1e-4, help="first beta of the linear schedule, as for 1000 timesteps", check=gt(0)
    )
    beta_end: float = field(
        0.02, help="last beta of the linear schedule, as for 1000 timesteps", check=gt(0)
    )
    sampler: Literal["ddim", "dpm_solver", "ancestral"] = field(
        "dpm_solver", help="sampling method"
    )
    sampling_steps: int = field(
        50, help="sampling steps, at most timesteps", check=between(1, 10**6)
    )
    guidance: float = guidance_field()

    output = "prediction"

    def metrics(self, recipe: Recipe) -> dict[str, Better]:
        return diffusion_metrics()

    def build(self) -> Strategy:
        from medgen_builtins.strategies import _ddpm, _schedules

        schedules = {
            "linear": lambda: _schedules.linear_betas(
                self.timesteps, self.beta_start, self.beta_end
            ),
            "cosine": lambda: _schedules.cosine_betas(self.timesteps),
        }
        betas = schedules[self.schedule]()
        made = _ddpm.DdpmStrategy(betas, self.prediction, self.sampler, self.sampling_steps)
        made.guidance = self.guidance
        return made


@hookimpl
def medgen_strategies() -> dict[str, type]:
    return {"ddpm": Ddpm}
