"""When a run is saved, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator

from medgen import Callback, CallbackSettings, Problem, Recipe, Run, field, ge, hookimpl, settings
from medgen.config.checks import check_metric, is_gain

medgen_api = 1


@settings
class Checkpoints(CallbackSettings):
    """`latest.pt` and `prev.pt` for resuming, `best.pt` by a metric, `epoch_*.pt` now and then."""

    every_steps: int = field(
        0,
        help="optimizer steps between saves of latest.pt; 0: by time and at epoch ends only",
        check=ge(0),
    )
    every_minutes: float = field(
        10.0, help="minutes between saves of latest.pt, at most", check=ge(0)
    )
    every_epochs: int = field(0, help="epochs between files epoch_*.pt; 0: never", check=ge(0))
    keep: int = field(3, help="number of newest epoch_*.pt to keep", check=ge(1))
    metric: str = field(
        "loss/val",
        help="what best.pt is best by: loss/val, or kid or obedience of the callback evaluation, and so on",
    )
    may_change = ("every_steps", "every_minutes", "every_epochs", "keep")

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        yield from check_metric(recipe, "callbacks.checkpoints.metric", self.metric)

    def build(self, run: Run) -> Callback:
        from medgen_builtins.callbacks._checkpoints import Saving, Times

        times = Times(self.every_steps, self.every_minutes, self.every_epochs)
        return Saving(times, self.keep, self.metric, is_gain(run.recipe, self.metric))


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"checkpoints": Checkpoints}
