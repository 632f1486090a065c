"""The network of `dct_autoencoder`: a block transform, and convolutions that restore what it drops."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor, nn

from medgen import DrawNoise

MAX_RESIDUAL = 1e-3
"""Spread of the last layer's weights at the start, so that training begins at the plain transform."""
NO_NOISE = -30.0
"""Log-variance of latents that are not drawn."""
QUIET = 0.005
"""Added to a strength, in units of [-1, 1], so that air, which has none, has a logarithm."""


def dct_basis(factor: int, axes: int, count: int) -> Tensor:
    """Return `count` basis images of the orthonormal DCT-II of blocks, `[count, factor ** axes]`, in
    order of frequency (Ahmed, Natarajan and Rao 1974, equations 1 and 2).

    Frequencies of an equal sum of squares come in the order of their indices.
    """
    place = (torch.arange(factor, dtype=torch.float64) + 0.5) * math.pi / factor
    waves = torch.stack([math.sqrt(2 / factor) * torch.cos(k * place) for k in range(factor)])
    waves[0] /= math.sqrt(2)
    frequencies = sorted(
        product(range(factor), repeat=axes), key=lambda each: (sum(k * k for k in each), each)
    )
    images = []
    for frequency in frequencies[:count]:
        image = torch.ones((), dtype=torch.float64)
        for k in frequency:
            image = image[..., None] * waves[k]
        images.append(image.flatten())
    return torch.stack(images).float()


class ResidualBlock(nn.Module):
    """Two convolutions without norms, as norms would depend on all of the image (Lim et al. 2017)."""

    def __init__(self, axes: int, channels: int):
        super().__init__()
        kind = nn.Conv2d if axes == 2 else nn.Conv3d
        self.layers = nn.Sequential(
            kind(channels, channels, 3, padding=1),
            nn.SiLU(),
            kind(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


class DctAutoencoder(nn.Module):
    """Encodes each channel's blocks to their lowest DCT coefficients, and decodes these plus what a
    network adds at the resolution of the latents. See `medgen.Autoencoder`.
    """

    basis: Tensor

    def __init__(
        self,
        axes: int,
        image_channels: int,
        factor: int,
        kept: int,
        channels: int,
        blocks: int,
        texture: bool = False,
    ):
        """kept: coefficients of a block of `factor ** axes` points. channels, blocks: of the network
        that restores. texture: adds a channel of latents, see `textured`.
        """
        super().__init__()
        self.axes, self.factor, self.kept, self.image_channels = axes, factor, kept, image_channels
        self.texture, self.dropped = texture, factor**axes - kept
        self.latent_channels = (kept + texture) * image_channels
        self.register_buffer("basis", dct_basis(factor, axes, factor**axes), persistent=False)
        kind = nn.Conv2d if axes == 2 else nn.Conv3d
        last = kind(channels, image_channels * factor**axes, 3, padding=1)
        nn.init.normal_(last.weight, std=MAX_RESIDUAL)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.restore = nn.Sequential(
            kind(kept * image_channels, channels, 3, padding=1),
            *(ResidualBlock(axes, channels) for _ in range(blocks)),
            last,
        )

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, `[batch, latent_channels, *space / factor]`, of images."""
        blocks = self._blocks(image)
        known = torch.einsum("kp,bcp...->bck...", self.basis[: self.kept].to(image.dtype), blocks)
        mean = torch.cat([known, self._strength(known, blocks)], 2) if self.texture else known
        mean = mean.flatten(1, 2)
        return mean, torch.full_like(mean, NO_NOISE)

    def decode(self, z: Tensor) -> Tensor:
        """Return images of latents, without texture."""
        return self._image(self._points(self._coefficients(self._split(z)[:, :, : self.kept])))

    def textured(self, image: Tensor, z: Tensor, draw: DrawNoise) -> Tensor:
        """Add noise of the latents' strength in the coefficients that are dropped, to what `decode`
        gives: scans have noise, of which no network can know more than how strong it is.

        As perceptual noise substitution does in audio (Herre and Schulz 1998).
        """
        if not self.texture:
            return image
        strength = (self._split(z)[:, :, self.kept :].exp() - QUIET).clamp_min(0)
        needed = self.image_channels * self.dropped
        noise = torch.cat([draw() for _ in range(-(-needed // z.shape[1]))], dim=1)[:, :needed]
        noise = strength * noise.reshape(len(z), self.image_channels, -1, *z.shape[2:])
        nothing = noise.new_zeros(*noise.shape[:2], self.kept, *noise.shape[3:])
        return image + self._image(self._points(torch.cat([nothing, noise], dim=2)))

    def _strength(self, known: Tensor, blocks: Tensor) -> Tensor:
        """Return the logarithm of the spread of the dropped coefficients around what the network
        makes of them, `[batch, channel, 1, *space / factor]`.
        """
        with torch.no_grad():
            dropped = self.basis[self.kept :].to(blocks.dtype)
            real = torch.einsum("kp,bcp...->bck...", dropped, blocks)
            lost = real - self._coefficients(known)[:, :, self.kept :]
        return (lost.square().mean(2, keepdim=True).sqrt() + QUIET).log()

    def _coefficients(self, known: Tensor) -> Tensor:
        """Return all coefficients, `[batch, channel, coefficient, *space / factor]`."""
        added = self.restore(known.flatten(1, 2)).reshape(*known.shape[:2], -1, *known.shape[3:])
        return torch.cat([added[:, :, : self.kept] + known, added[:, :, self.kept :]], dim=2)

    def _points(self, coefficients: Tensor) -> Tensor:
        """Return blocks, as of `_blocks`."""
        return torch.einsum("kp,bck...->bcp...", self.basis.to(coefficients.dtype), coefficients)

    def _split(self, z: Tensor) -> Tensor:
        """Return `[batch, channel, latent, *space / factor]`."""
        return z.reshape(len(z), self.image_channels, -1, *z.shape[2:])

    def _blocks(self, image: Tensor) -> Tensor:
        """Return `[batch, channel, points of a block, *space / factor]`."""
        batch, channels, *space = image.shape
        sides = [part for length in space for part in (length // self.factor, self.factor)]
        places = range(2, 2 + 2 * self.axes)
        order = (0, 1, *places[1::2], *places[::2])
        return image.reshape(batch, channels, *sides).permute(order).flatten(2, 1 + self.axes)

    def _image(self, blocks: Tensor) -> Tensor:
        """Return the image, `[batch, channel, *space]`, of `_blocks`."""
        batch, channels, _, *space = blocks.shape
        parts = blocks.reshape(batch, channels, *(self.factor,) * self.axes, *space)
        order = [each for axis in range(self.axes) for each in (2 + self.axes + axis, 2 + axis)]
        return parts.permute(0, 1, *order).reshape(
            batch, channels, *(length * self.factor for length in space)
        )
