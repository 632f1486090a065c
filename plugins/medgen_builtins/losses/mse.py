"""The mean squared error of the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import LossSettings, Noisy, Prediction, hookimpl, settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medgen.api.interfaces import LossFunction

medgen_api = 1


@settings
class Mse(LossSettings):
    """Mean squared error of the target."""

    needs = ("target",)

    def build(self, device: torch.device) -> LossFunction:
        return mean_squared_error


def mean_squared_error(prediction: Prediction, noisy: Noisy) -> Tensor:
    """Return the error, `[batch]`, in fp32."""
    return (prediction.target.float() - noisy.target.float()).square().flatten(1).mean(1)


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"mse": Mse}
