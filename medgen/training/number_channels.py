"""What a network is given besides the sample: the condition's channels, and one for each number."""

from __future__ import annotations

import torch
from torch import Tensor

from medgen.api.interfaces import Space


def conditions(space: Space, condition: Tensor, numbers: Tensor | tuple[()]) -> Tensor:
    """Bring a condition to the grid of the space; each number becomes a channel that is constant.

    numbers: `[batch, number]`, as of `Batch`. Returns `[batch, channel, *space]`.
    """
    given = space.condition(condition)
    if isinstance(numbers, tuple):
        return given
    size = given.shape[2:]
    planes = numbers.reshape(*numbers.shape, *(1 for _ in size)).expand(*numbers.shape, *size)
    return torch.cat([given, planes], dim=1)
