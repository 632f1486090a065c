"""MONAI's diffusion U-Net (Rombach et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from medgen import NetworkSettings, Problem, between, field, hookimpl, settings
from medgen.api.tables import size_text

if TYPE_CHECKING:
    from torch import nn

    from medgen.api.recipe import Recipe

medgen_api = 1

_MAX_GROUPS = 32
_MAX_HEAD_CHANNELS = 64


@settings
class Unet(NetworkSettings):
    """A U-Net of residual blocks with attention at the deepest level (MONAI's DiffusionModelUNet)."""

    channels: tuple[int, ...] = field(
        (128, 256, 256),
        help="channels of each level; every level but the last halves the resolution",
        check=between(1, 10**6),
    )
    num_res_blocks: int = field(2, help="residual blocks per level", check=between(1, 100))
    attention: tuple[bool, ...] | None = field(
        None, help="true for each level with attention; default: the deepest"
    )
    norm_groups: int | None = field(
        None, help="groups of the norms; default: as many as fit, up to 32", check=between(1, 1024)
    )
    head_channels: int | None = field(
        None,
        help="channels of an attention head; default: the most that fits, up to 64",
        check=between(1, 65536),
    )
    dropout: float = field(
        0.0, help="share of features to drop in each residual block", check=between(0, 0.9)
    )
    checkpointing: bool = field(
        False,
        help="recompute activations: at most half the memory of a step, a third more time, same result",
    )
    may_change = ("checkpointing",)

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if not self.channels:
            what = "got [], expected at least one level"
            yield Problem("network.unet.channels", what, "Give the width of each level")
            return
        yield from self._check_size(recipe)
        yield from self._check_widths()
        if len(self._attention()) != len(self.channels):
            expected = f"{len(self.channels)}, one per level of network.unet.channels"
            what = f"got {len(self._attention())} values, expected {expected}"
            yield Problem("network.unet.attention", what, "Give one per level")

    def build(self, in_channels: int, out_channels: int, axes: int = 2) -> nn.Module:
        """Return `network(x, t)`: x `[batch, in_channels, *space]`, t `[batch]` in 0..1000."""
        from medgen_builtins.networks._unet import make_unet

        return make_unet(
            spatial_dims=axes,
            in_channels=in_channels,
            out_channels=out_channels,
            num_res_blocks=self.num_res_blocks,
            channels=self.channels,
            attention_levels=self._attention(),
            norm_groups=self._norm_groups(),
            head_channels=[self._head_channels(width) for width in self.channels],
            dropout=self.dropout,
            checkpointing=self.checkpointing,
        )

    def _attention(self) -> tuple[bool, ...]:
        levels = len(self.channels)
        return (
            tuple(level == levels - 1 for level in range(levels))
            if self.attention is None
            else self.attention
        )

    def _norm_groups(self) -> int:
        return self.norm_groups or _largest_divisor(math.gcd(*self.channels), _MAX_GROUPS)

    def _head_channels(self, width: int) -> int:
        return self.head_channels or _largest_divisor(width, _MAX_HEAD_CHANNELS)

    def _check_size(self, recipe: Recipe) -> Iterator[Problem]:
        size, halvings = size_text(recipe.data.trained_size), len(self.channels) - 1
        inside = recipe.space.spatial(recipe.data.trained_shape)
        if any(length % 2**halvings for length in inside):
            got = f"got {size}, which is {' x '.join(map(str, inside))} in the space"
            levels = f"as {len(self.channels)} levels halve it {halvings} times"
            what = f"{got}, expected a multiple of {2**halvings} there, {levels}"
            fix = "Choose another size, or fewer network.unet.channels"
            yield Problem(recipe.data.trained_key, what, fix)

    def _check_widths(self) -> Iterator[Problem]:
        groups = self._norm_groups()
        for level, width in enumerate(self.channels):
            if width % groups:
                what = f"got {width}, expected a multiple of network.unet.norm_groups = {groups}"
                fix = "Choose one, or leave norm_groups out"
                yield Problem(f"network.unet.channels[{level}]", what, fix)
            if self._attends(level) and width % self._head_channels(width):
                expected = f"a divisor of network.unet.channels[{level}] = {width}"
                what = f"got {self.head_channels}, expected {expected}"
                yield Problem("network.unet.head_channels", what, "Choose one, or leave it out")

    def _attends(self, level: int) -> bool:
        """True for levels with attention; the middle block always attends at the deepest level."""
        return level == len(self.channels) - 1 or self._attention()[level : level + 1] == (True,)


def _largest_divisor(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, limit + 1) if number % divisor == 0)


@hookimpl
def medgen_networks() -> dict[str, type]:
    return {"unet": Unet}
