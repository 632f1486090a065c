"""MONAI's autoencoder with the two functions that medgen calls an autoencoder by (see `Autoencoder`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

LOGVAR = (-30.0, 20.0)


class Convolutional(nn.Module):
    """MONAI's own `encode` gives sigma and its `forward` draws from the global generators."""

    def __init__(self, net: Any, latent_channels: int, factor: int):
        super().__init__()
        self.net, self.latent_channels, self.factor = net, latent_channels, factor

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, `[batch, latent_channels, *space / factor]`, of images `[batch, channel, *space]`."""
        features = self.net.encoder(image)
        logvar = self.net.quant_conv_log_sigma(features).clamp(*LOGVAR)
        return self.net.quant_conv_mu(features), logvar

    def decode(self, z: Tensor) -> Tensor:
        """Images of latents."""
        return self.net.decode(z)  # type: ignore[no-any-return]
