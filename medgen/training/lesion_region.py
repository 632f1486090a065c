"""Generate a region of images, around the lesions of the condition; all else is given.

Noise lies in the region alone, and so does what the loss counts: the network sees the rest as it
is, at every time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medgen.api.interfaces import Space
from medgen.api.values import Draws, Mode, Noisy, Prediction

OUTSIDE = -0.5
"""Conditions below it are outside of the region; see `Mode.margin`."""


class Everywhere:
    """The region of images that are generated as a whole: leaves all as it is."""

    def noise_inside(self, noisy: Noisy) -> Noisy:
        """Restrict the noise to the region."""
        return noisy

    def truth_outside(self, prediction: Prediction, noisy: Noisy) -> Prediction:
        """Put the truth into a prediction outside of the region."""
        return prediction

    def mean(self, loss: Tensor) -> Tensor:
        """Turn means `[batch]` over all samples into means over the region."""
        return loss


class Region(Everywhere):
    """A region of images. inside: bool `[batch, channel, *space]`, of the space's own samples."""

    def __init__(self, inside: Tensor):
        self.inside = inside

    def noise_inside(self, noisy: Noisy) -> Noisy:
        """Restrict the noise to the region."""
        return noisy._replace(x=torch.where(self.inside, noisy.x, noisy.x0.to(noisy.x.dtype)))

    def truth_outside(self, prediction: Prediction, noisy: Noisy) -> Prediction:
        """Put the truth into a prediction outside of the region, so that it has no error there."""
        target = torch.where(self.inside, prediction.target, noisy.target.float())
        return Prediction(target, torch.where(self.inside, prediction.x0, noisy.x0.float()))

    def mean(self, loss: Tensor) -> Tensor:
        """Turn means `[batch]` over all samples, 0 outside of the region, into means over it."""
        inside = self.inside.flatten(1)
        return loss * (inside.shape[1] / inside.sum(1).clamp_min(1))


EVERYWHERE = Everywhere()


class Given(NamedTuple):
    """What is known of samples `[batch, channel, *space]` of the space: `z` outside of `region`."""

    z: Tensor
    region: Tensor


def region(mode: Mode, space: Space, condition: Tensor) -> Everywhere:
    """Return the region that is generated of samples whose condition is `[batch, mask, *space]`."""
    return Region(_inside(mode, space, condition)) if mode.margin else EVERYWHERE


def given(mode: Mode, space: Space, image: Tensor, condition: Tensor) -> Given | None:
    """Return what is known of images in [-1, 1]; None where whole images are generated."""
    if not mode.margin:
        return None
    return Given(_into(space, image), _inside(mode, space, condition))


def _inside(mode: Mode, space: Space, condition: Tensor) -> Tensor:
    """Return the mask of a region, bool `[batch, channel, *space]`."""
    inside = (condition > OUTSIDE).any(1, keepdim=True)
    size = (condition.shape[0], mode.channels, *condition.shape[2:])
    return _into(space, inside.expand(size).to(condition.dtype)) > 0


def _into(space: Space, image: Tensor) -> Tensor:
    """Bring images into a space that only reorders pixels, and so needs no random number."""
    none = image.new_empty(0)
    return space.encode(space.prepare(image), Draws(none, none))
