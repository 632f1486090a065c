"""The soft Dice loss of masks (Milletari et al. 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import HasImage, LossSettings, field, gt, hookimpl, settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medgen.api.interfaces import LossFunction

medgen_api = 1


@settings
class Dice(LossSettings):
    """One minus the overlap of masks, where sigmoid(2 x0) is the probability of a pixel."""

    smooth: float = field(
        1.0, help="px added to both masks, so that two empty masks agree", check=gt(0)
    )

    needs = ("x0",)

    def build(self, device: torch.device) -> LossFunction:
        def loss(prediction: HasImage, noisy: HasImage) -> Tensor:
            made, truth = (
                (2 * prediction.x0.float()).sigmoid().flatten(2),
                (noisy.x0 > 0).float().flatten(2),
            )
            # Milletari et al. 2016, section 3, with the smoothing that empty masks need
            both, all_of = (made * truth).sum(2), made.square().sum(2) + truth.square().sum(2)
            return (1 - (2 * both + self.smooth) / (all_of + self.smooth)).mean(1)

        return loss


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"dice": Dice}
