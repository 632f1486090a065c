"""Find the lesion masks among a mode's channels, by `[data.masks]` alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from medgen.api.values import Mode

if TYPE_CHECKING:
    from torch import Tensor


def mask_channels(names: Sequence[str], masks: Collection[str]) -> list[int]:
    """List the positions of masks among channels. masks: the recipe's, by `layouts.mask_names`."""
    return [place for place, name in enumerate(names) if name in masks]


def has_masks(mode: Mode, masks: Collection[str]) -> bool:
    """Return whether `lesion_masks` finds any in a batch of a mode."""
    own = () if mode.pooled else mode.images
    return bool(mask_channels((*mode.condition, *own), masks))


def lesion_masks(
    mode: Mode, masks: Collection[str], images: Tensor, condition: Tensor
) -> Tensor | None:
    """Stack a batch's masks, `[batch, mask, *space]`, true in lesions: given, then generated.

    None where the mode has no mask. A pooled sample does not say which image it is, so its images
    count as none.
    """
    import torch  # recipes are checked without it

    own = [] if mode.pooled else mask_channels(mode.images, masks)
    channels = [condition[:, place] for place in mask_channels(mode.condition, masks)]
    channels += [images[:, place] for place in own]
    return torch.stack(channels, dim=1) > 0 if channels else None
