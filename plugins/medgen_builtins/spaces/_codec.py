"""Turn images into normalised latents and back with an autoencoder that was read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgen.training.tiles import Tiles, in_tiles

if TYPE_CHECKING:
    from medgen.api.interfaces import Autoencoder
    from medgen.api.values import DrawNoise

LEAST_SCALE = 1e-6
"""A channel that is the same everywhere has no scale."""


class Codec:
    """Images `[batch, channel, *space]` to means and log-variances of latents, and normalised
    latents to images.

    An autoencoder of one channel encodes each channel by itself. digest: sha256 of the recipe and
    the weights. shift: `[channel]`, or `[channel, *space]` for samples of one size; scale:
    `[channel]`; both of the latents over the whole training set. tiles: in which images of several
    are encoded and decoded; None: as a whole.
    """

    tiles: Tiles | None = None
    trained: tuple[int, ...] = ()
    """Sides of the crops that the autoencoder was trained on, px; none: whole images."""

    def __init__(self, text: str, module: nn.Module, count: int, width: int, device: torch.device):
        """text: the autoencoder's recipe. count: channels of an image. width: channels that the
        module takes.
        """
        self.text = text
        self.digest = _digest(text, module.state_dict())
        self.module = module.to(device).eval().requires_grad_(False)
        self.autoencoder = cast("Autoencoder", module)
        self.groups = count // width
        self.channels = self.groups * self.autoencoder.latent_channels
        self.shift, self.scale = (
            torch.zeros(self.channels, device=device),
            torch.ones(self.channels, device=device),
        )

    def moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log-variances, each `[batch, channels, *space / factor]`."""
        mean, logvar = self._encode(self._split(image)).chunk(2, dim=1)
        return self._join(mean, len(image)), self._join(logvar, len(image))

    def normalise(self, z: Tensor) -> Tensor:
        """Normalise latents."""
        return (z - self._spread(self.shift, z)) / self._spread(self.scale, z)

    def decode(self, z: Tensor) -> Tensor:
        """Decode normalised latents to images, not clamped."""
        return self._join(self._decode(self._latents(z)), len(z))

    def textured(self, image: Tensor, z: Tensor, draw: DrawNoise) -> Tensor:
        """Add texture to decoded images, if the autoencoder has any: see `DctAutoencoder`."""
        add = getattr(self.module, "textured", None)
        if add is None:
            return image
        made = add(self._split(image), self._latents(z), lambda: self._split(draw()))
        return self._join(made, len(z))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `restore` needs."""
        scaling = {"shift": self.shift, "scale": self.scale}
        return {
            "recipe": self.text,
            "digest": self.digest,
            "weights": self.module.state_dict(),
            **scaling,
        }

    def _encode(self, image: Tensor) -> Tensor:
        """Return means and log-variances as channels."""

        def moments(part: Tensor) -> Tensor:
            return torch.cat(self.autoencoder.encode(part), dim=1)

        factor = self.autoencoder.factor
        if self.tiles is None or not self.tiles.divide(
            [side // factor for side in image.shape[2:]]
        ):
            return moments(image)
        return in_tiles(moments, image, self.tiles, before=factor, after=1)

    def _decode(self, z: Tensor) -> Tensor:
        if self.tiles is None or not self.tiles.divide(z.shape[2:]):
            return self.autoencoder.decode(z)
        factor = self.autoencoder.factor
        return in_tiles(self.autoencoder.decode, z, self.tiles, before=1, after=factor)

    def _latents(self, z: Tensor) -> Tensor:
        """Return what the autoencoder takes, of normalised latents."""
        return self._split(z * self._spread(self.scale, z) + self._spread(self.shift, z))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(len(x) * self.groups, x.shape[1] // self.groups, *x.shape[2:])

    def _join(self, x: Tensor, batch: int) -> Tensor:
        return x.reshape(batch, -1, *x.shape[2:])

    def _spread(self, values: Tensor, z: Tensor) -> Tensor:
        return values.view(*values.shape, *(1,) * (z.ndim - 1 - values.ndim))


class Moments:
    """Mean and variance of sampled latents, accumulated in parts: of each channel, `[channel]`, or of
    each place of it, `[channel, *space]`.
    """

    def __init__(self, places: bool = False) -> None:
        self.places, self.count = places, 0
        self.sums: Tensor | None = None

    def add(self, mean: Tensor, logvar: Tensor) -> None:
        """Add means and log-variances, each `[batch, channel, *space]`."""
        mean, noise = mean.double(), logvar.double().exp()
        sums = torch.stack([self._sum(each) for each in (mean, mean.square(), noise)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.count += mean.numel() // sums[0].numel()

    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean, the variance of the means, and the mean variance of the noise."""
        assert self.sums is not None
        mean, square, noise = self.sums / self.count
        return mean, (square - mean.square()).clamp_min(0), noise

    def shift_and_scale(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of a sample; its variance is that of the means plus
        that of the noise. Of places, half of it is that of the places around, as a few samples say
        little of one.
        """
        mean, signal, noise = self.read()
        variance = signal + noise
        if self.places:
            pool = {3: functional.avg_pool2d, 4: functional.avg_pool3d}[variance.ndim]
            variance = (variance + pool(variance, 3, 1, 1, count_include_pad=False)) / 2
        return mean.float(), variance.sqrt().clamp_min(LEAST_SCALE).float()

    def _sum(self, values: Tensor) -> Tensor:
        return values.sum(0) if self.places else values.transpose(0, 1).flatten(1).sum(1)


def _digest(text: str, weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, value in weights.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
