"""MONAI's autoencoder with the two functions of medgen's (see `Autoencoder`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import AutoencoderKL
from monai.networks.nets.autoencoderkl import AEKLResBlock, SpatialAttentionBlock
from torch import Tensor, nn

from medgen_builtins.networks._gradient_checkpointing import recompute

LOGVAR = (-30.0, 20.0)


class Convolutional(nn.Module):
    """MONAI's own `encode` gives sigma and its `forward` draws from the global generators."""

    def __init__(self, net: Any, latent_channels: int, factor: int):
        super().__init__()
        self.net, self.latent_channels, self.factor = net, latent_channels, factor

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, `[batch, latent_channels, *space / factor]`, of images."""
        features = self.net.encoder(image)
        logvar = self.net.quant_conv_log_sigma(features).clamp(*LOGVAR)
        return self.net.quant_conv_mu(features), logvar

    def decode(self, z: Tensor) -> Tensor:
        """Return images of latents."""
        return self.net.decode(z)  # type: ignore[no-any-return]


def make_autoencoder(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    num_res_blocks: int,
    channels: Sequence[int],
    latent_channels: int,
    norm_groups: int,
    attention: bool,
    checkpointing: bool,
) -> Convolutional:
    """Return the network, see `medgen.Autoencoder`. attention: at the deepest level."""
    made = AutoencoderKL(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        num_res_blocks=(num_res_blocks,) * len(channels),
        channels=channels,
        attention_levels=(False,) * len(channels),
        latent_channels=latent_channels,
        norm_num_groups=norm_groups,
        with_encoder_nonlocal_attn=attention,
        with_decoder_nonlocal_attn=attention,
        use_flash_attention=True,  # without it a matrix of all positions by all positions is kept
    )
    if checkpointing:
        kinds = (AEKLResBlock, SpatialAttentionBlock)
        recompute([each for each in made.modules() if isinstance(each, kinds)])
    return Convolutional(made, latent_channels, factor=2 ** (len(channels) - 1))
