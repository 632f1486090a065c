"""Images of which only a region is generated, around the lesions of the condition; all else of them
is given.

Noise lies in the region alone, and so does what the loss counts: the network sees the rest as it
is, at every time. A region is bool `[batch, channel, *space]`, of the space's own samples; None
where whole images are generated.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medgen.api.interfaces import Space
from medgen.api.values import Draws, Mode, Noisy, Prediction

OUTSIDE = -0.5
"""Conditions below it are outside of the region; see `Mode.margin`."""


class Given(NamedTuple):
    """What is known of samples, `[batch, channel, *space]` of the space: all of `z` but the
    `region`.
    """

    z: Tensor
    region: Tensor


def region(mode: Mode, space: Space, condition: Tensor) -> Tensor | None:
    """Return the region of samples whose condition is `[batch, mask, *space]`."""
    if not mode.margin:
        return None
    inside = (condition > OUTSIDE).any(1, keepdim=True)
    size = (condition.shape[0], mode.channels, *condition.shape[2:])
    return _into(space, inside.expand(size).to(condition.dtype)) > 0


def given(mode: Mode, space: Space, image: Tensor, condition: Tensor) -> Given | None:
    """Return what is known of images in [-1, 1]; None where whole images are generated."""
    where = region(mode, space, condition)
    return None if where is None else Given(_into(space, image), where)


def _into(space: Space, image: Tensor) -> Tensor:
    """Bring images into a space that only reorders their pixels, so that no random number is
    needed.
    """
    none = image.new_empty(0)
    return space.encode(space.prepare(image), Draws(none, none))


def noise_within(region: Tensor | None, noisy: Noisy) -> Noisy:
    """Take the noise away outside of the region."""
    return (
        noisy
        if region is None
        else noisy._replace(x=torch.where(region, noisy.x, noisy.x0.to(noisy.x.dtype)))
    )


def truth_outside(region: Tensor | None, prediction: Prediction, noisy: Noisy) -> Prediction:
    """Put what is given into a prediction outside of the region, where it has no error then."""
    if region is None:
        return prediction
    target = torch.where(region, prediction.target, noisy.target.float())
    return Prediction(target, torch.where(region, prediction.x0, noisy.x0.float()))


def mean_within(region: Tensor | None, loss: Tensor) -> Tensor:
    """Turn losses `[batch]`, means over samples that are wrong in the region alone, into means over
    the region.
    """
    if region is None:
        return loss
    inside = region.flatten(1)
    return loss * (inside.shape[1] / inside.sum(1).clamp_min(1))
