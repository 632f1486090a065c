"""What the settings classes derive from that judge pairs; they are no part of a recipe."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen.api.contract import Contract
from medgen.api.interfaces import Extractor

if TYPE_CHECKING:
    import torch
    from torch import nn


class FeaturesSettings(Contract):
    """What images are compared by. Commands take its fields as `features.NAME.KEY=VALUE`."""

    anatomy: bool = False
    """True if the features know heads, so that the verdict on pairs comes from them. A member, or a
    field.
    """

    def build(self, device: torch.device) -> Extractor:
        """Return what turns images into features."""


class SegmenterSettings(Contract):
    """What finds lesions. Commands take its fields as `segmenters.NAME.KEY=VALUE`."""

    def build(self, in_channels: int, axes: int = 2) -> nn.Module:
        """Return a module `network(x)`: images `[n, in_channels, *space]` in [-1, 1] to logits `[n,
        1, *space]`. axes: of space; given for volumes alone.
        """
