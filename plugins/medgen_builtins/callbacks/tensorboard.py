"""Everything that is logged, in TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import Callback, CallbackSettings, field, gt, hookimpl, settings

if TYPE_CHECKING:
    from medgen.api.recipe import Run

medgen_api = 1


@settings
class TensorBoard(CallbackSettings):
    """Numbers, pictures and the resolved recipe, in the run's folder `tensorboard/`."""

    every_steps: int = field(
        50, help="optimizer steps between readings of the losses, at most", check=gt(0)
    )
    may_change = ("every_steps",)

    def build(self, run: Run) -> Callback:
        from medgen_builtins.callbacks._tensorboard import Writing

        run.show_every(self.every_steps)
        return Writing()


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"tensorboard": TensorBoard}
