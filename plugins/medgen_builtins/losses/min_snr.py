"""Min-SNR weighting (Hang et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import LossSettings, Noisy, Prediction, field, gt, hookimpl, settings
from medgen_builtins.losses.mse import mean_squared_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medgen.api.interfaces import LossFunction

medgen_api = 1


@settings
class MinSnr(LossSettings):
    """Squared error of x0 times min(SNR, gamma), for any target. Use it instead of mse."""

    gamma: float = field(5.0, help="SNR above which the weight is constant", check=gt(0))

    needs = ("target",)

    def build(self, device: torch.device) -> LossFunction:
        def loss(prediction: Prediction, noisy: Noisy) -> Tensor:
            # Hang et al. 2023, section 3.4: min(snr, gamma) |x0 error|^2; the gain turns the target's error into x0's
            weight = noisy.snr.clamp(max=self.gamma) * noisy.gain
            return weight * mean_squared_error(prediction, noisy)

        return loss


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"min_snr": MinSnr}
