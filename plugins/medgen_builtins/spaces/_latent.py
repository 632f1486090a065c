"""The latents of an autoencoder, as a space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from medgen import Batch, DrawNoise, Draws, Mode, Space
from medgen_builtins.spaces import _latent_autoencoder
from medgen_builtins.spaces._codec import Codec, Moments
from medgen_builtins.spaces.latent import Tile
from medgen_builtins.spaces.space_to_depth import fold

FLATTEST = 0.01
"""Least standard deviation of a place, where that of all is 1: air is flat."""


class LatentSpace(Space):
    """See `StoringSpace`. What is stored are means and log-variances, `[batch, 2 * channels,
    *space]`.

    The autoencoders are read from the recipe's files when they are first needed, unless
    `load_state_dict` brought them.
    """

    def __init__(
        self,
        mode: Mode,
        factor: int,
        axes: int,
        checkpoint: Path,
        mask_checkpoint: Path | None,
        device: torch.device,
        tile: Tile,
        scaling: str = "channel",
    ):
        """mask_checkpoint: encodes the masks; None: they are folded. axes: spatial ones of a
        sample. tile: says in which tiles the autoencoders work. scaling: `channel`, `whole`
        or `place`.
        """
        self.mode, self.factor, self.axes, self.device = mode, factor, axes, device
        self.tile, self.scaling = tile, scaling
        self.checkpoint, self.mask_checkpoint = checkpoint, mask_checkpoint
        self._images: Codec | None = None
        self._masks: Codec | None = None

    @property
    def images(self) -> Codec:
        """The autoencoder of the images."""
        if self._images is None:
            self._images = self._read(
                self.checkpoint, "checkpoint", self.mode.images, self.mode.channels
            )
        return self._images

    @property
    def masks(self) -> Codec | None:
        """The autoencoder of the condition, where there is one."""
        names, path = self.mode.condition, self.mask_checkpoint
        if self._masks is None and path is not None and names:
            self._masks = self._read(path, "mask_checkpoint", names, len(names))
        return self._masks

    @property
    def channels(self) -> int:  # type: ignore[override]  # known once the autoencoder is read
        return self.images.channels

    @property
    def condition_channels(self) -> int:  # type: ignore[override]  # known once the autoencoder is read
        folded = len(self.mode.condition) * self.factor**self.axes
        return self.masks.channels if self.masks else folded

    @property
    def key(self) -> str:  # type: ignore[override]  # known once the autoencoder is read
        """A hash of the images' autoencoder, and the tiles that it works in."""
        tiles = self.images.tiles
        return f"latent {self.images.digest}" + (f" {tiles}" if tiles else "")

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        return (self.channels, *(length // self.factor for length in size))

    def prepare(self, image: Tensor) -> Tensor:
        """Return means and log-variances, stacked."""
        return torch.cat(self.images.moments(image), dim=1)

    def encode(self, stored: Tensor, draws: Draws) -> Tensor:
        """Draw a new sample of each latent: (mean + sigma epsilon - shift) / scale."""
        mean, logvar = stored.chunk(2, dim=1)
        return self.images.normalise(mean + (0.5 * logvar).exp() * cast("Tensor", draws.latent))

    def condition(self, condition: Tensor) -> Tensor:
        """Bring masks to the latent grid: folded into channels, or encoded to the mean by the
        masks' autoencoder.
        """
        if self.masks is None:
            return fold(condition, self.factor)
        with torch.no_grad():
            return self.masks.normalise(self.masks.moments(condition)[0])

    def decode(self, z: Tensor) -> Tensor:
        return self.images.decode(z)

    def textured(self, image: Tensor, z: Tensor, draw: DrawNoise) -> Tensor:
        return self.images.textured(image, z, draw)

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Measure shift and scale, for mean 0 of each channel, or of each place of it, and variance 1
        of each channel or of all together, over the training set.
        """
        of_images, of_masks = Moments(places=self.scaling == "place"), Moments()
        for batch in batches:
            of_images.add(*batch.image.chunk(2, dim=1))
            if self.masks is not None:
                with torch.no_grad():
                    mean = self.masks.moments(batch.condition)[0]
                of_masks.add(mean, torch.full_like(mean, -torch.inf))  # it is not sampled
        self.images.shift, spread = of_images.shift_and_scale()
        whole = spread.square().mean().sqrt()
        self.images.scale = spread if self.scaling == "channel" else whole.repeat(self.channels)
        deviation = spread / (spread if self.scaling == "channel" else whole)
        self._measured(deviation.clamp_min(FLATTEST) if self.scaling == "place" else deviation)
        if self.masks is not None:
            self.masks.shift, self.masks.scale = of_masks.shift_and_scale()

    def state_dict(self) -> dict[str, Any]:
        masks = {"mask_autoencoder": self.masks.state_dict()} if self.masks else {}
        state: dict[str, Any] = {"autoencoder": self.images.state_dict()} | masks
        if self.scaling != "channel" and self.moments is not None:
            state["deviation"] = self.moments[1]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._images = self._restore(state["autoencoder"], self.mode.channels)
        ones = torch.ones(self.channels)
        deviation = ones if self.scaling == "channel" else state["deviation"]
        self._measured(deviation.to(self.device))
        if self.mask_checkpoint is not None and self.mode.condition:
            self._masks = self._restore(state["mask_autoencoder"], len(self.mode.condition))

    def _measured(self, deviation: Tensor) -> None:
        """Keep the standard deviation of each normalised channel, or place, whose mean is 0."""
        self.moments = torch.zeros_like(deviation), deviation

    def _read(self, path: Path, key: str, names: Sequence[str], count: int) -> Codec:
        where, fits = f"space.latent.{key}", (self.factor, self.axes)
        return self._tiled(_latent_autoencoder.read(path, where, names, count, *fits, self.device))

    def _restore(self, state: Mapping[str, Any], count: int) -> Codec:
        fits = (self.factor, self.axes)
        return self._tiled(_latent_autoencoder.restore(state, count, *fits, self.device))

    def _tiled(self, codec: Codec) -> Codec:
        codec.tiles = self.tile.tiles(self.factor, self.axes, codec.trained)
        return codec
