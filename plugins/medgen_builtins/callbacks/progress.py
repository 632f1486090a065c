"""How training goes: a bar on a terminal, lines of fixed fields in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import Callback, CallbackSettings, field, gt, hookimpl, settings

if TYPE_CHECKING:
    from medgen.api.recipe import Run

medgen_api = 1


@settings
class Progress(CallbackSettings):
    """Step, epoch, loss, rate, throughput, memory, time left; and a line for each validation."""

    every_steps: int = field(
        50, help="optimizer steps between lines; a line at least every half minute", check=gt(0)
    )
    may_change = ("every_steps",)

    def build(self, run: Run) -> Callback:
        from medgen_builtins.callbacks._progress import Reporting

        run.show_every(self.every_steps)
        return Reporting(self.every_steps)


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"progress": Progress}
