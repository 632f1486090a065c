"""Diffusion of the images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medgen import Draws, Mode, Space, SpaceSettings, hookimpl, settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

medgen_api = 1


@settings
class Pixel(SpaceSettings):
    """The images as they are."""

    def spatial(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of an encoded sample, for the checks of a recipe."""
        return tuple(size)

    def build(self, mode: Mode, device: torch.device, axes: int = 2) -> PixelSpace:
        return PixelSpace(mode)


class PixelSpace(Space):
    """See `Space`."""

    def __init__(self, mode: Mode):
        self.channels, self.condition_channels = mode.channels, len(mode.condition)

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        return (self.channels, *size)

    def prepare(self, image: Tensor) -> Tensor:
        return image

    def encode(self, stored: Tensor, draws: Draws) -> Tensor:
        return stored

    def condition(self, condition: Tensor) -> Tensor:
        return condition

    def decode(self, z: Tensor) -> Tensor:
        return z

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the space has no state."""


@hookimpl
def medgen_spaces() -> dict[str, type]:
    return {"pixel": Pixel}
