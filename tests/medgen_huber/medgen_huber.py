"""The Huber loss for medgen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import LossSettings, Noisy, Prediction, field, gt, hookimpl, settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medgen.api.interfaces import LossFunction

medgen_api = 1


@settings
class Huber(LossSettings):
    """Squared error near zero, absolute error far from it."""

    delta: float = field(0.1, help="where the two meet", check=gt(0))

    def build(self, device: torch.device) -> LossFunction:
        from torch.nn.functional import huber_loss

        def loss(prediction: Prediction, noisy: Noisy) -> Tensor:
            each = huber_loss(prediction.target, noisy.target, delta=self.delta, reduction="none")
            return each.flatten(1).mean(1)

        return loss


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"huber": Huber}
