"""Diffusion of an autoencoder's latents (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from medgen import Batch, Draws, Mode, Problem, Space, SpaceSettings, field, ge, hookimpl, settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medgen.api.recipe import Recipe
    from medgen_builtins.spaces._latent_autoencoder import Codec

medgen_api = 1


@settings
class Latent(SpaceSettings):
    """Latents of an autoencoder, encoded once; its weights are in every checkpoint."""

    checkpoint: Path = field(help="checkpoint of an autoencoder, or the folder of its run")
    factor: int = field(4, help="pixels per latent pixel and side; must be that of the autoencoder", check=ge(1))
    masks: Literal["resample", "encode"] = field(
        "resample",
        help="encoding of masks. resample: blocks of factor x factor pixels become channels of one latent pixel, "
        "so no lesion is lost; encode: by the autoencoder mask_checkpoint",
    )
    mask_checkpoint: Path | None = field(None, help="checkpoint of an autoencoder of masks, for masks = encode")
    spatial_dims: int = field(2, help="number of spatial axes", check=ge(1))

    def spatial(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of an encoded sample, for the checks of a recipe."""
        return tuple(length // self.factor for length in size)

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        size, wanted = recipe.data.image_size, self.masks == "encode"
        if size % self.factor:
            what = f"got {size}, expected a multiple of space.latent.factor = {self.factor}"
            yield Problem("data.image_size", what, "Change one of them")
        if wanted and self.mask_checkpoint is None:
            what = "missing, expected a path, as space.latent.masks is encode"
            yield Problem("space.latent.mask_checkpoint", what, "Give one")
        if not wanted and self.mask_checkpoint is not None:
            what = "is not read, as space.latent.masks is resample"
            fix = "Remove it, or set space.latent.masks to encode"
            yield Problem("space.latent.mask_checkpoint", what, fix)

    def build(self, mode: Mode, device: torch.device) -> LatentSpace:
        return LatentSpace(mode, self, device)


class LatentSpace(Space):
    """See `StoringSpace`. What is stored are means and log-variances, `[batch, 2 * channels, *space]`.

    The autoencoders are read from the recipe's files when they are first needed, unless `load_state_dict` brought them.
    """

    def __init__(self, mode: Mode, options: Latent, device: torch.device):
        self.mode, self.options, self.device = mode, options, device
        self._images: Codec | None = None
        self._masks: Codec | None = None

    @property
    def images(self) -> Codec:
        """The autoencoder of the images."""
        if self._images is None:
            self._images = self._read(self.options.checkpoint, "checkpoint", self.mode.images, self.mode.channels)
        return self._images

    @property
    def masks(self) -> Codec | None:
        """The autoencoder of the condition, where there is one."""
        names, wanted = self.mode.condition, self.options.masks == "encode"
        if self._masks is None and wanted and names:
            path = self.options.mask_checkpoint or Path()
            self._masks = self._read(path, "mask_checkpoint", names, len(names))
        return self._masks

    @property
    def channels(self) -> int:  # type: ignore[override]  # known once the autoencoder is read
        return self.images.channels

    @property
    def condition_channels(self) -> int:  # type: ignore[override]  # known once the autoencoder is read
        folded = len(self.mode.condition) * self.options.factor**self.options.spatial_dims
        return self.masks.channels if self.masks else folded

    @property
    def key(self) -> str:  # type: ignore[override]  # known once the autoencoder is read
        """A hash of the images' autoencoder."""
        return f"latent {self.images.digest}"

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        return (self.channels, *self.options.spatial(size))

    def prepare(self, image: Tensor) -> Tensor:
        """Return means and log-variances, stacked."""
        import torch

        return torch.cat(self.images.moments(image), dim=1)

    def encode(self, stored: Tensor, draws: Draws) -> Tensor:
        """Draw a new sample of each latent: (mean + sigma epsilon - shift) / scale."""
        mean, logvar = stored.chunk(2, dim=1)
        return self.images.normalise(mean + (0.5 * logvar).exp() * cast("Tensor", draws.latent))

    def condition(self, condition: Tensor) -> Tensor:
        """Bring masks to the latent grid: folded into channels, or encoded to the mean by the masks' autoencoder."""
        import torch

        from medgen_builtins.spaces.space_to_depth import fold

        if self.masks is None:
            return fold(condition, self.options.factor)
        with torch.no_grad():
            return self.masks.normalise(self.masks.moments(condition)[0])

    def decode(self, z: Tensor) -> Tensor:
        return self.images.decode(z)

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Measure shift and scale of each channel, for mean 0 and variance 1 over the training set."""
        import torch

        from medgen_builtins.spaces._latent_autoencoder import Moments

        of_images, of_masks = Moments(), Moments()
        for stored, condition in batches:
            of_images.add(*stored.chunk(2, dim=1))
            if self.masks is not None:
                with torch.no_grad():
                    mean = self.masks.moments(condition)[0]
                of_masks.add(mean, torch.full_like(mean, -torch.inf))  # it is not sampled
        self.images.shift, self.images.scale = of_images.shift_and_scale()
        if self.masks is not None:
            self.masks.shift, self.masks.scale = of_masks.shift_and_scale()

    def state_dict(self) -> dict[str, Any]:
        return {"autoencoder": self.images.state_dict()} | (
            {"mask_autoencoder": self.masks.state_dict()} if self.masks else {}
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._images = self._restore(state["autoencoder"], self.mode.images, self.mode.channels)
        if self.options.masks == "encode" and self.mode.condition:
            names = self.mode.condition
            self._masks = self._restore(state["mask_autoencoder"], names, len(names))

    def _read(self, path: Path, key: str, names: Sequence[str], count: int) -> Codec:
        from medgen_builtins.spaces import _latent_autoencoder

        return _latent_autoencoder.read(path, f"space.latent.{key}", names, count, self.options.factor, self.device)

    def _restore(self, state: Mapping[str, Any], names: Sequence[str], count: int) -> Codec:
        from medgen_builtins.spaces import _latent_autoencoder

        return _latent_autoencoder.restore(state, names, count, self.options.factor, self.device)


@hookimpl
def medgen_spaces() -> dict[str, type]:
    return {"latent": Latent}
