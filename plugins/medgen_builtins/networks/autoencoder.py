"""MONAI's convolutional autoencoder with a normal posterior (Rombach et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medgen import NetworkSettings, Problem, between, field, hookimpl, settings
from medgen.api.tables import sides, size_text
from medgen_builtins.networks._norms import count_groups

if TYPE_CHECKING:
    from torch import nn

    from medgen.api.recipe import Recipe

medgen_api = 1


@settings
class Autoencoder(NetworkSettings):
    """Residual blocks, each level but the last halving, around latents of few channels (MONAI's
    AutoencoderKL).
    """

    channels: tuple[int, ...] = field(
        (64, 128, 256),
        help="channels of each level; every level but the last halves the resolution",
        check=between(1, 10**6),
    )
    latent_channels: int = field(4, help="channels of the latents", check=between(1, 4096))
    num_res_blocks: int = field(2, help="residual blocks per level", check=between(1, 100))
    attention: bool = field(False, help="use attention among all positions of the deepest level")
    norm_groups: int | None = field(
        None,
        help="groups of the norms; default: as many as fit, up to 32, of at least 4 channels",
        check=between(1, 1024),
    )
    checkpointing: bool = field(
        False,
        help="recompute activations: at most half the memory of a step, a third more time, same result",
    )
    may_change = ("checkpointing",)

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if not self.channels:
            what = "got [], expected at least one level"
            yield Problem("network.autoencoder.channels", what, "Give the width of each level")
            return
        size, halvings = recipe.data.trained_size, len(self.channels) - 1
        if any(side % 2**halvings for side in sides(size)):
            levels = f"as {len(self.channels)} levels halve it {halvings} times"
            what = f"got {size_text(size)}, expected a multiple of {2**halvings}, {levels}"
            fix = "Choose another size, or fewer network.autoencoder.channels"
            yield Problem(recipe.data.trained_key, what, fix)
        for level, width in enumerate(self.channels):
            if width % self._norm_groups():
                groups = f"network.autoencoder.norm_groups = {self._norm_groups()}"
                what = f"got {width}, expected a multiple of {groups}"
                fix = "Choose one, or leave norm_groups out"
                yield Problem(f"network.autoencoder.channels[{level}]", what, fix)

    def build(self, in_channels: int, out_channels: int, axes: int = 2) -> nn.Module:
        """Return the network, see `medgen.Autoencoder`."""
        from medgen_builtins.networks._monai_autoencoder import make_autoencoder

        return make_autoencoder(
            spatial_dims=axes,
            in_channels=in_channels,
            out_channels=out_channels,
            num_res_blocks=self.num_res_blocks,
            channels=self.channels,
            latent_channels=self.latent_channels,
            norm_groups=self._norm_groups(),
            attention=self.attention,
            checkpointing=self.checkpointing,
        )

    def _norm_groups(self) -> int:
        return self.norm_groups or count_groups(self.channels)


@hookimpl
def medgen_networks() -> dict[str, type]:
    return {"autoencoder": Autoencoder}
