"""Diffusion of images folded into channels: a small grid, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medgen import Draws, Mode, Problem, Space, SpaceSettings, field, ge, hookimpl, settings
from medgen.api.tables import sides, size_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medgen.api.recipe import Recipe

medgen_api = 1


@settings
class SpaceToDepth(SpaceSettings):
    """Blocks of pixels as channels of one pixel: lossless, and factor^2 times (in volumes factor^3)
    fewer positions to compute.
    """

    factor: int = field(2, help="px, edge of a block", check=ge(1))

    def spatial(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of an encoded sample, for the checks of a recipe."""
        return tuple(length // self.factor for length in size)

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        for key, size in recipe.data.sizes.items():
            if any(side % self.factor for side in sides(size)):
                what = f"got {size_text(size)}, expected a multiple of space.space_to_depth.factor = {self.factor}"
                yield Problem(key, what, "Change one of them")

    def build(self, mode: Mode, device: torch.device, axes: int = 2) -> SpaceToDepthSpace:
        return SpaceToDepthSpace(mode, self, axes)


class SpaceToDepthSpace(Space):
    """See `Space`. Channel c of the image becomes channels c factor^axes and on."""

    def __init__(self, mode: Mode, options: SpaceToDepth, axes: int):
        self.options, self.factor = options, options.factor
        block = options.factor**axes
        self.channels, self.condition_channels = mode.channels * block, len(mode.condition) * block

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        return (self.channels, *self.options.spatial(size))

    def prepare(self, image: Tensor) -> Tensor:
        return image

    def encode(self, stored: Tensor, draws: Draws) -> Tensor:
        return fold(stored, self.factor)

    def condition(self, condition: Tensor) -> Tensor:
        return fold(condition, self.factor)

    def decode(self, z: Tensor) -> Tensor:
        return unfold(z, self.factor)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the space has no state."""


def fold(x: Tensor, factor: int) -> Tensor:
    """Fold `[batch, channel, *space]` to `[batch, channel * factor^axes, *space / factor]`."""
    batch, channels, *size = x.shape
    axes, small = len(size), [length // factor for length in size]
    blocks = x.reshape(batch, channels, *(part for length in small for part in (length, factor)))
    order = (0, 1, *range(3, 3 + 2 * axes, 2), *range(2, 2 + 2 * axes, 2))
    return blocks.permute(order).reshape(batch, channels * factor**axes, *small)


def unfold(z: Tensor, factor: int) -> Tensor:
    """Invert `fold`."""
    batch, channels, *small = z.shape
    axes = len(small)
    blocks = z.reshape(batch, channels // factor**axes, *(factor,) * axes, *small)
    order = (0, 1, *(part for axis in range(axes) for part in (2 + axes + axis, 2 + axis)))
    return blocks.permute(order).reshape(batch, -1, *(length * factor for length in small))


@hookimpl
def medgen_spaces() -> dict[str, type]:
    return {"space_to_depth": SpaceToDepth}
