"""Averaged weights: what is validated, previewed and generated with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import Callback, CallbackSettings, between, field, ge, hookimpl, settings

if TYPE_CHECKING:
    from medgen.api.recipe import Run

medgen_api = 1


@settings
class Ema(CallbackSettings):
    """Exponential moving average of weights, fp32. Validation, previews and `generate` use it."""

    decay: float = field(
        0.9999, help="share of the average that each step keeps", check=between(0, 1)
    )
    warmup: int = field(
        10, help="steps of warm-up: step n keeps at most (1 + n) / (warmup + n)", check=ge(1)
    )

    def build(self, run: Run) -> Callback:
        from medgen_builtins.callbacks._ema import Averaging

        return Averaging(self.decay, self.warmup, run)


@hookimpl
def medgen_callbacks() -> dict[str, type]:
    return {"ema": Ema}
