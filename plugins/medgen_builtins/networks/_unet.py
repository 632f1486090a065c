"""MONAI's U-Net for diffusion, with dropout and gradient checkpointing."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets import DiffusionModelUNet
from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock, SpatialAttentionBlock
from torch import Tensor, nn
from torch.nn.functional import dropout as drop_out

from medgen_builtins.networks._gradient_checkpointing import recompute


def make_unet(
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    num_res_blocks: int,
    channels: Sequence[int],
    attention_levels: Sequence[bool],
    norm_groups: int,
    head_channels: Sequence[int],
    dropout: float,
    checkpointing: bool,
) -> nn.Module:
    """Return `network(x, t)`: x `[batch, in_channels, *space]`, t `[batch]` in 0..1000."""
    network = DiffusionModelUNet(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        num_res_blocks=num_res_blocks,
        channels=channels,
        attention_levels=attention_levels,
        norm_num_groups=norm_groups,
        num_head_channels=head_channels,
        use_flash_attention=True,  # without it a matrix of all positions by all positions is kept
    )
    if dropout:
        _add_dropout(network, dropout)
    if checkpointing:
        _recompute(network, draws=dropout > 0)
    return network  # type: ignore[no-any-return]


def _add_dropout(network: nn.Module, share: float) -> None:
    """Add dropout before each residual block's second convolution (Ho et al. 2020, app. B).

    Uses hooks, so that the names of the weights do not change.
    """

    def drop(convolution: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (drop_out(inputs[0], share, convolution.training),)

    for module in network.modules():
        if isinstance(module, DiffusionUNetResnetBlock):
            module.conv2.register_forward_pre_hook(drop)


def _recompute(network: nn.Module, draws: bool) -> None:
    """Checkpoint every residual and attention block separately: less memory than whole levels."""
    blocks = (DiffusionUNetResnetBlock, SpatialAttentionBlock)
    recompute([each for each in network.modules() if isinstance(each, blocks)], draws)
