"""The mean absolute error of the reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import HasImage, LossSettings, hookimpl, settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medgen.api.interfaces import LossFunction

medgen_api = 1


@settings
class L1(LossSettings):
    """Mean absolute error of the clean sample."""

    needs = ("x0",)

    def build(self, device: torch.device) -> LossFunction:
        return mean_absolute_error


def mean_absolute_error(prediction: HasImage, noisy: HasImage) -> Tensor:
    """Return the error, `[batch]`, in fp32."""
    return (prediction.x0.float() - noisy.x0.float()).abs().flatten(1).mean(1)


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"l1": L1}
