"""The values that pass between the core and plugins. Tensors are `[batch, channel, *space]`.

Importing this module imports no torch, so that recipes are checked and plugins listed at once.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from medgen.api.numbers import PLACE

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


SINGLE = ("mode", "strategy", "space", "network")
"""Kinds of which a recipe has exactly one; a later one replaces an earlier one."""


SEVERAL = ("losses", "callbacks")
"""Kinds of which a recipe has any number; they merge."""


KINDS = SINGLE + SEVERAL


MEASURES = ("features", "segmenters")
"""Kinds that judge pairs; no part of a recipe."""


TIME_SCALE = 1000.0
"""Networks, draws and samplers speak of times on a scale of 0 (clean) to 1000 (noise)."""


BINS = 5
"""Parts of the time axis of which validation shows the loss."""


Better = Literal["low", "high"]
"""Which values of a figure are better."""


def diffusion_metrics() -> dict[str, Better]:
    """List what validation measures of every diffusion model, besides its losses; see `objective`."""
    edges = [int(edge * TIME_SCALE / BINS) for edge in range(BINS + 1)]
    parts: dict[str, Better] = {
        f"loss/val/t_{low:03d}_{high:04d}": "low" for low, high in pairwise(edges)
    }
    return {**parts, "psnr/x0": "high", "mse/lesion": "low", "mse/outside": "low"}


class SliceFacts(NamedTuple):
    """What is known of slices besides their channels.

    person: int64 `[n]`, the same for all visits of one. position: float32 `[n]`, 0 bottom to 1 top
    of the head, NaN where it is not known. area: int64 `[n]`, px of all masks that are read.
    """

    person: np.ndarray
    position: np.ndarray
    area: np.ndarray


class Mode(NamedTuple):
    """What is generated, given what: names of channels, as `[data]` names them."""

    images: tuple[str, ...]
    condition: tuple[str, ...] = ()
    pooled: bool = False
    """Each image is a sample of its own with one channel, instead of all being channels of one
    sample.
    """
    margin: float = 0.0
    """mm around the lesions of the condition's masks within which the images are generated; all
    else of them is given.

    Such a mask is 1 in lesions, 0 in the margin around them within the head, and -1 elsewhere. 0:
    images are generated as a whole.
    """
    numbers: tuple[str, ...] = ()
    """What is known of a slice besides its channels, names in `medgen.api.numbers`."""

    @property
    def scalars(self) -> tuple[str, ...]:
        """Return the names in `numbers` of what is a single number of each sample."""
        return tuple(name for name in self.numbers if name != PLACE)

    @property
    def has_place(self) -> bool:
        """Return True if a crop is given the coordinates of its points in the whole sample."""
        return PLACE in self.numbers

    @property
    def channels(self) -> int:
        """Channels of one generated sample."""
        return 1 if self.pooled else len(self.images)

    @property
    def names(self) -> tuple[str, ...]:
        """Every channel that is read from the data."""
        return self.images + self.condition


class Batch(NamedTuple):
    """A batch as it leaves the data: everything in [-1, 1], masks -1 or +1.

    `image` is `[batch, channel, *space]`, or what the space's `prepare` made of it; `condition` may
    have no channels. numbers: fp32 `[batch, number]`, the mode's, scaled to about [-1, 1]; empty if
    it has none. place: fp32 `[batch, 2, axis]`, px, first the corners of crops in their samples, then
    the sides of the samples; empty unless the mode's `numbers` name it.
    """

    image: Tensor
    condition: Tensor
    numbers: Tensor | tuple[()] = ()
    place: Tensor | tuple[()] = ()

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return what `change` makes of every tensor."""
        known = (
            each if isinstance(each, tuple) else change(each) for each in (self.numbers, self.place)
        )
        return Batch(change(self.image), change(self.condition), *known)


class Draws(NamedTuple):
    """The random numbers of one step, drawn outside whatever is compiled.

    t: `[batch]`, 0 (clean) to 1000 (noise), as the network sees it. noise: `[batch, *shape]`,
    standard normal. latent: the same, for spaces that draw a new sample of what is stored in each
    step; empty for all others.
    """

    t: Tensor
    noise: Tensor
    latent: Tensor | tuple[()] = ()


class Noisy(NamedTuple):
    """A corrupted sample and what the loss needs to know of it. All but `t` and `x` may be read by
    losses, in fp32.

    x: `[batch, channel, *space]`, what the network sees. t: `[batch]` in 0..1000, as the network
    sees it. target: what is regressed on. x0: the clean sample. snr: `[batch]`, alpha^2/sigma^2.
    gain: `[batch]`, (dx0/dtarget)^2.
    """

    x: Tensor
    t: Tensor
    target: Tensor
    x0: Tensor
    snr: Tensor
    gain: Tensor


class Prediction(NamedTuple):
    """A network's output, read: `target` in the units of `Noisy.target`, and the clean sample it
    implies, in fp32.
    """

    target: Tensor
    x0: Tensor


class AutoencoderPrediction(NamedTuple):
    """What an autoencoder made of images, fp32. Losses read it beside a `Clean`.

    x0: the reconstruction, about in [-1, 1]; of a mask, sigmoid(2 x0) is the probability of +1.
    mean, logvar: `[batch, latent channel, *latent space]`. logits: what a discriminator says of x0,
    no values without.
    """

    x0: Tensor
    mean: Tensor
    logvar: Tensor
    logits: Tensor


class Clean(NamedTuple):
    """What an autoencoder is to give back; what its losses get instead of a `Noisy`."""

    x0: Tensor


class TurnOutput(NamedTuple):
    """What one pass of a turn gives. losses: by name, each `[batch]`, fp32, unweighted."""

    losses: dict[str, Tensor]
    prediction: Prediction | AutoencoderPrediction
    noisy: Noisy | Clean


class HasImage(Protocol):
    """What every prediction has, and what it is compared with: for losses that read nothing else."""

    @property
    def x0(self) -> Tensor:
        """The clean sample, or the reconstruction, `[batch, channel, *space]`."""


Predict = Callable[["Tensor", float], Prediction]
"""`predict(xt, t)`: xt `[batch, channel, *space]`, t a float in 0..1000, the same for the whole
batch.
"""


DrawNoise = Callable[[], "Tensor"]
"""Fresh standard normal noise of the batch's shape, for samplers that are stochastic."""


class StopFit(Exception):
    """Raised inside an epoch's end when the run is to stop; whoever resumes works that end off
    again.
    """
