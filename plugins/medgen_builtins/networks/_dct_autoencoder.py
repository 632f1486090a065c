"""The network of `dct_autoencoder`: a block transform, and convolutions that restore what it drops."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor, nn

MAX_RESIDUAL = 1e-3
"""Spread of the last layer's weights at the start, so that training begins at the plain transform."""
NO_NOISE = -30.0
"""Log-variance of latents that are not drawn."""


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
        self, axes: int, image_channels: int, factor: int, kept: int, channels: int, blocks: int
    ):
        """kept: coefficients of a block of `factor ** axes` points. channels, blocks: of the network
        that restores.
        """
        super().__init__()
        self.axes, self.factor, self.kept, self.image_channels = axes, factor, kept, image_channels
        self.latent_channels = kept * image_channels
        self.register_buffer("basis", dct_basis(factor, axes, factor**axes), persistent=False)
        kind = nn.Conv2d if axes == 2 else nn.Conv3d
        last = kind(channels, image_channels * factor**axes, 3, padding=1)
        nn.init.normal_(last.weight, std=MAX_RESIDUAL)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.restore = nn.Sequential(
            kind(self.latent_channels, channels, 3, padding=1),
            *(ResidualBlock(axes, channels) for _ in range(blocks)),
            last,
        )

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, `[batch, latent_channels, *space / factor]`, of images."""
        blocks = self._blocks(image)
        mean = torch.einsum("kp,bcp...->bck...", self.basis[: self.kept].to(image.dtype), blocks)
        mean = mean.flatten(1, 2)
        return mean, torch.full_like(mean, NO_NOISE)

    def decode(self, z: Tensor) -> Tensor:
        """Return images of latents."""
        split = (len(z), self.image_channels, -1, *z.shape[2:])
        known = z.reshape(split)
        added = self.restore(z).reshape(split)
        kept = added[:, :, : self.kept] + known
        coefficients = torch.cat([kept, added[:, :, self.kept :]], dim=2)
        blocks = torch.einsum("kp,bck...->bcp...", self.basis.to(z.dtype), coefficients)
        return self._image(blocks)

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
