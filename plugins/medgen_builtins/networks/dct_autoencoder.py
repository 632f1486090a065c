"""An autoencoder whose encoder is a fixed block transform, and whose decoder restores detail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medgen import NetworkSettings, Problem, between, field, hookimpl, settings
from medgen.api.tables import sides, size_text

if TYPE_CHECKING:
    from torch import nn

    from medgen.api.recipe import Recipe

medgen_api = 1


@settings
class DctAutoencoder(NetworkSettings):
    """The lowest coefficients of a discrete cosine transform of blocks, and a decoder that learns to
    restore the others: needs few scans, and holds for any contrast.
    """

    factor: int = field(4, help="pixels per latent pixel and side", check=between(2, 16))
    latent_channels: int = field(
        8,
        help="coefficients of a block that become channels of the latents, for each image",
        check=between(1, 4096),
    )
    channels: int = field(64, help="width of the decoder", check=between(1, 10**6))
    blocks: int = field(6, help="residual blocks of the decoder", check=between(1, 100))
    texture: bool = field(
        False,
        help="one more channel of latents for each image: how strong the coefficients that are not kept are; "
        "what is sampled gets noise of that strength",
    )

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        size, most = recipe.data.trained_size, self.factor**recipe.data.axes
        if any(side % self.factor for side in sides(size)):
            what = f"got {size_text(size)}, expected a multiple of {self.factor}"
            fix = "Choose another size, or another network.dct_autoencoder.factor"
            yield Problem(recipe.data.trained_key, what, fix)
        if self.latent_channels > most:
            what = (
                f"got {self.latent_channels}, expected at most {most}, the coefficients of a block"
            )
            yield Problem("network.dct_autoencoder.latent_channels", what, f"Give at most {most}")
        if self.texture and self.latent_channels == most:
            what = f"is on, but all {most} coefficients of a block are kept"
            yield Problem("network.dct_autoencoder.texture", what, "Leave it out, or keep fewer")

    def build(self, in_channels: int, out_channels: int, axes: int = 2) -> nn.Module:
        """Return the network, see `medgen.Autoencoder`."""
        from medgen_builtins.networks import _dct_autoencoder

        return _dct_autoencoder.DctAutoencoder(
            axes,
            in_channels,
            self.factor,
            self.latent_channels,
            self.channels,
            self.blocks,
            self.texture,
        )


@hookimpl
def medgen_networks() -> dict[str, type]:
    return {"dct_autoencoder": DctAutoencoder}
