"""Previews of the model: samples from fixed noise and fixed masks, and trajectories of some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import Callback, CallbackSettings, between, field, gt, hookimpl, settings

if TYPE_CHECKING:
    from medgen.api.recipe import Run

medgen_api = 1


@settings
class Previews(CallbackSettings):
    """A grid of samples, and a denoising trajectory: in the run's `previews/` and in TensorBoard."""

    every: int = field(1, help="validations between previews", check=gt(0))
    count: int = field(8, help="number of samples in the grid", check=between(1, 1024))
    steps: int = field(0, help="sampling steps; 0: the strategy's own", check=between(0, 10**6))
    may_change = ("every", "count", "steps")

    def build(self, run: Run) -> Callback:
        from medgen_builtins.callbacks._previews import Previewing

        return Previewing(self.every, self.count, self.steps)


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"previews": Previews}
