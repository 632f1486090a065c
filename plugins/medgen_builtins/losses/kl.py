"""KL divergence of an autoencoder's posterior from N(0, 1) (Kingma and Welling 2014, app. B)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import AutoencoderPrediction, Clean, LossSettings, hookimpl, settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medgen.api.interfaces import LossFunction

medgen_api = 1


@settings
class Kl(LossSettings):
    """KL divergence from a standard normal, in nats per latent value: the mean, so that no size
    changes its share.

    A sample's sum, which others weight with 1e-6, is this times its number of latent values.
    """

    needs = ("mean", "logvar")

    def build(self, device: torch.device) -> LossFunction:
        def loss(prediction: AutoencoderPrediction, noisy: Clean) -> Tensor:
            return divergence(prediction.mean, prediction.logvar).flatten(1).mean(1)

        return loss


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mean, exp(logvar)) || N(0, 1)) of each value, in nats, fp32."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"kl": Kl}
