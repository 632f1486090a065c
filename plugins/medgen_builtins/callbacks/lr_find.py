"""The learning-rate range test (Smith 2017), scored so that the curve is about the rate and not
about the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medgen import Callback, CallbackSettings, Problem, between, field, gt, hookimpl, settings

if TYPE_CHECKING:
    from medgen import Run
    from medgen.api.recipe import Recipe
from medgen_builtins.callbacks._lr_finding import FEWEST

medgen_api = 1


@settings
class LrFind(CallbackSettings):
    """Before training, finds learning rates that train, into lr_finder.png and lr_finder.json.

    Everything is put back afterwards: the run goes on as it would have without.
    """

    min_lr: float = field(1e-6, help="learning rate at the start of the ramp", check=gt(0))
    max_lr: float = field(1.0, help="learning rate at the end of the ramp", check=gt(0))
    steps: int = field(
        100, help="number of rates, each trained on one batch", check=between(FEWEST, 10**6)
    )
    may_change = ("min_lr", "max_lr", "steps")

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if self.max_lr <= self.min_lr:
            expected = f"more than min_lr = {self.min_lr:g}"
            yield Problem(
                "callbacks.lr_find.max_lr", f"got {self.max_lr:g}, expected {expected}", "Raise it"
            )

    def build(self, run: Run) -> Callback:
        from medgen_builtins.callbacks._lr_sweep import Finder

        return Finder(self)


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"lr_find": LrFind}
