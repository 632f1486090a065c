"""What a network is given besides the sample: the condition's channels, one for each number, and one for
each axis where crops are told their place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medgen.api.interfaces import Space
from medgen.api.values import Mode


def conditions(
    space: Space,
    condition: Tensor,
    numbers: Tensor | tuple[()],
    place: Tensor | tuple[()] = (),
) -> Tensor:
    """Bring a condition to the grid of the space; each number becomes a channel that is constant, and
    the place becomes a channel of coordinates for each axis.

    numbers, place: `[batch, number]` and `[batch, 2, axis]`, as of `Batch`. Returns `[batch, channel,
    *space]`.
    """
    given = space.condition(condition)
    size, channels = given.shape[2:], [given]
    if not isinstance(numbers, tuple):
        planes = numbers.reshape(*numbers.shape, *(1 for _ in size))
        channels.append(planes.expand(*numbers.shape, *size))
    if not isinstance(place, tuple):
        channels.append(coordinates(place, condition.shape[2:], size))
    return torch.cat(channels, dim=1) if len(channels) > 1 else given


def coordinates(place: Tensor, shape: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return the coordinates of all points of crops in their samples, `[batch, axis, *size]`, from -1 at
    a sample's first edge to 1 at its last (CoordConv, Liu et al. 2018).

    place: `[batch, 2, axis]`, as of `Batch`. shape: sides of a crop, px. size: the same in the grid of
    the space, of whose blocks of pixels the middles count. All but the last two operations are exact,
    so that a crop has bit for bit what the whole has there.
    """
    lines = []
    for axis, (side, points) in enumerate(zip(shape, size, strict=True)):
        corner, whole = place[:, :, axis].unsqueeze(2).unbind(1)  # [batch, 1]
        middles = (2 * torch.arange(points, device=place.device) + 1) * (side / points)
        line = (2 * corner + middles) / whole - 1
        along = [points if other == axis else 1 for other in range(len(size))]
        lines.append(line.reshape(-1, *along).expand(-1, *size))
    return torch.stack(lines, dim=1)


def of_whole(mode: Mode, condition: Tensor) -> Tensor | tuple[()]:
    """Return the place of whole samples, as of `Batch`, for conditions `[batch, channel, *space]`."""
    if not mode.has_place:
        return ()
    size = torch.tensor(condition.shape[2:], dtype=torch.float32, device=condition.device)
    return torch.stack([torch.zeros_like(size), size]).expand(len(condition), -1, -1)
