"""A third party's autoencoder: each patch of an image becomes one latent pixel by a rotation, and comes back by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import NetworkSettings, field, ge, hookimpl, settings

if TYPE_CHECKING:
    from torch import Tensor, nn

medgen_api = 1


@settings
class Patches(NetworkSettings):
    """Patches of factor x factor pixels, rotated; nothing is lost while latent_channels are as many as their pixels."""

    factor: int = field(4, help="edge of a patch, px", check=ge(1))
    latent_channels: int = field(16, help="values kept of a patch", check=ge(1))
    logvar: float = field(-6.0, help="log-variance of every latent")

    def build(self, in_channels: int, out_channels: int, axes: int = 2) -> nn.Module:
        import torch

        settings = self

        class Rotation(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.factor, self.latent_channels = settings.factor, settings.latent_channels
                self.rotation = torch.nn.Conv2d(in_channels, self.latent_channels, self.factor, self.factor, bias=False)
                torch.nn.init.orthogonal_(self.rotation.weight)

            def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
                mean = self.rotation(image)
                return mean, torch.full_like(mean, settings.logvar)

            def decode(self, z: Tensor) -> Tensor:
                weight = self.rotation.weight
                back = weight / weight.square().sum((1, 2, 3), keepdim=True)
                return torch.nn.functional.conv_transpose2d(z, back, stride=self.factor)

        return Rotation()


@hookimpl
def medgen_networks() -> dict[str, type]:
    return {"patches": Patches}
