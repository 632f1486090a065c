"""A small U-Net (Ronneberger et al. 2015), MONAI's UNet, trained on the spot to find lesions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import SegmenterSettings, field, ge, gt, hookimpl, settings

if TYPE_CHECKING:
    from torch import nn

medgen_api = 1


@settings
class SmallUnet(SegmenterSettings):
    """A U-Net small enough to be trained on a laptop within a minute; no match for nnU-Net."""

    channels: tuple[int, ...] = field(
        (16, 16, 32, 64),
        help="width of each level; the first is at full size, each other halves",
        check=gt(0),
    )
    units: int = field(0, help="residual units per level; 0 is one plain convolution", check=ge(0))

    def build(self, in_channels: int, axes: int = 2) -> nn.Module:
        """Return `network(x)`: x `[n, in_channels, *space]`, sides that divide by 2^(levels - 2),
        to logits `[n, 1, *space]`.
        """
        from monai.networks.nets import UNet

        return UNet(  # type: ignore[no-any-return]
            spatial_dims=axes,
            in_channels=in_channels,
            out_channels=1,
            channels=self.channels,
            strides=(
                1,
                *(2,) * (len(self.channels) - 2),
            ),  # a first level that halves loses lesions of few pixels
            num_res_units=self.units,
        )


@hookimpl
def medgen_segmenters() -> dict[str, type]:
    return {"small_unet": SmallUnet}
