"""A third party's autoencoder of another kind: finite scalar quantisation (Mentzer et al. 2024, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medgen import NetworkSettings, Problem, between, field, ge, gt, hookimpl, settings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medgen.api.recipe import Recipe

medgen_api = 1


@settings
class Fsq(NetworkSettings):
    """Each latent value is one of a few levels; the encoder halves by strided convolutions, as often as asked."""

    halvings: int = field(3, help="how often a side is halved", check=between(1, 6))
    width: int = field(32, help="channels between", check=gt(0))
    latent_channels: int = field(6, help="values of each latent pixel", check=ge(1))
    levels: int = field(5, help="levels of each value, odd", check=ge(3))

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if self.levels % 2 == 0:
            what = f"got {self.levels}, expected an odd number"
            yield Problem("network.fsq.levels", what, f"Use {self.levels + 1}")
        if recipe.data.image_size % 2**self.halvings:
            what = f"got {recipe.data.image_size}, expected a multiple of {2**self.halvings}"
            yield Problem("data.image_size", what, "Choose another size")

    def build(self, in_channels: int, out_channels: int, axes: int = 2) -> nn.Module:
        import torch
        from torch import nn

        settings, width = self, self.width

        def down() -> nn.Module:
            return nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 4, 2, 1))

        def up() -> nn.Module:
            return nn.Sequential(nn.ConvTranspose2d(width, width, 4, 2, 1), nn.SiLU())

        class Quantised(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.latent_channels, self.factor = settings.latent_channels, 2**settings.halvings
                times, kept = range(settings.halvings), settings.latent_channels
                first, last = nn.Conv2d(in_channels, width, 3, 1, 1), nn.Conv2d(width, kept, 1)
                self.encoder = nn.Sequential(first, *(down() for _ in times), nn.SiLU(), last)
                first, last = nn.Conv2d(kept, width, 1), nn.Conv2d(width, out_channels, 3, 1, 1)
                self.decoder = nn.Sequential(first, *(up() for _ in times), last)

            def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
                mean = torch.tanh(self.encoder(image))
                return mean, torch.full_like(mean, -30.0)  # nothing is random

            def decode(self, z: Tensor) -> Tensor:
                steps = (settings.levels - 1) / 2
                nearest = (z.clamp(-1, 1) * steps).round() / steps
                back: Tensor = self.decoder(z + (nearest - z).detach())  # gradients pass as if nothing was rounded
                return back

        return Quantised()


@hookimpl
def medgen_networks() -> dict[str, type]:
    return {"fsq": Fsq}
