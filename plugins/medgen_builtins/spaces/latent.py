"""Diffusion of an autoencoder's latents (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medgen import Mode, Problem, RecipeError, Space, SpaceSettings, field, ge, hookimpl, settings
from medgen.api.tables import sides, size_text

if TYPE_CHECKING:
    import torch

    from medgen.api.recipe import Recipe
    from medgen.training.tiles import Tiles

medgen_api = 1


@settings
class Tile:
    """Tiles in which images are encoded and decoded, so that memory does not grow with their size.

    The result is that of the whole where no tiles overlap, if the autoencoder sees no further than
    the overlap and has no norm that sees all of an image; with one, such as the group norms of
    `network.autoencoder`, use tiles of the size that it was trained on.
    """

    size: int | None = field(
        None,
        help="px, edge of a tile; 0: images are encoded as a whole; default: as the crops "
        "(data.patch_size) that the autoencoder was trained on, if it was",
        check=ge(0),
    )
    overlap: int | None = field(
        None,
        help="px by which neighbours overlap, at most half of size; default: a quarter",
        check=ge(0),
    )

    def check(self, factor: int) -> Iterator[Problem]:
        """Find edges that are no whole latent pixels, and overlaps that are too wide."""
        for name, value in (("size", self.size or 0), ("overlap", self.overlap or 0)):
            if value % factor:
                what = f"got {value}, expected a multiple of space.latent.factor = {factor}"
                yield Problem(f"space.latent.tile.{name}", what, "Change one of them")
        if self.size is not None:
            yield from self._check_overlap(self.size)

    def tiles(self, factor: int, axes: int, trained: Sequence[int] = ()) -> Tiles | None:
        """Return the tiles; None for images as a whole. Raises RecipeError.

        axes: spatial ones of a sample. trained: sides of the crops that the autoencoder knows, px.
        """
        from medgen.training.tiles import Tiles

        edges = trained if self.size is None else (self.size,) * axes
        if not edges or not min(edges):
            return None
        for problem in self._check_overlap(min(edges)):
            raise RecipeError(problem)
        overlap = min(edges) // 4 if self.overlap is None else self.overlap
        return Tiles(tuple(edge // factor for edge in edges), overlap // factor)

    def _check_overlap(self, size: int) -> Iterator[Problem]:
        if 2 * (self.overlap or 0) > size:
            what = f"got {self.overlap}, expected at most half of a tile, which has {size} px"
            yield Problem("space.latent.tile.overlap", what, "Change one of them")


@settings
class Latent(SpaceSettings):
    """Latents of an autoencoder, encoded once; its weights are in every checkpoint."""

    checkpoint: Path = field(
        help="checkpoint of an autoencoder, the folder of its run, or a file of export-weights; "
        '"brain": the one that comes along'
    )
    factor: int = field(
        4, help="pixels per latent pixel and side; must be that of the autoencoder", check=ge(1)
    )
    masks: Literal["resample", "encode"] = field(
        "resample",
        help="encoding of masks. resample: blocks of factor x factor pixels become channels of one latent pixel, "
        "so no lesion is lost; encode: by the autoencoder mask_checkpoint",
    )
    mask_checkpoint: Path | None = field(
        None, help="checkpoint of an autoencoder of masks, for masks = encode"
    )
    tile: Tile = field(Tile(), help="size and overlap of tiles, for images of any size")
    scaling: Literal["channel", "whole", "place"] = field(
        "channel",
        help="what has variance 1. channel: each channel of the latents; whole: all of them together, so that channels"
        " of coarse shapes stand out of noise before those of detail do, as in pixels; place: the same, after the mean"
        " of all training samples at each place is taken away, so that the network adds to an average head",
    )

    measures = True
    output = "scaling"

    def spatial(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial size of an encoded sample, for the checks of a recipe."""
        return tuple(length // self.factor for length in size)

    def check(self, recipe: Recipe) -> Iterator[Problem]:
        if recipe.data.augment.on:
            what = "is on, but latents are made once, before training, and cannot be changed"
            yield Problem("data.augment", what, "Remove it, or train in pixels")
        if recipe.data.patch_size:
            what = "is given, but latents are made of whole samples, once, before training"
            yield Problem("data.patch_size", what, "Leave it out: latents are small")
        size, wanted = recipe.data.image_size, self.masks == "encode"
        if any(side % self.factor for side in sides(size)):
            what = (
                f"got {size_text(size)}, expected a multiple of space.latent.factor = {self.factor}"
            )
            yield Problem("data.image_size", what, "Change one of them")
        yield from self.tile.check(self.factor)
        if wanted and self.mask_checkpoint is None:
            what = "missing, expected a path, as space.latent.masks is encode"
            yield Problem("space.latent.mask_checkpoint", what, "Give one")
        if not wanted and self.mask_checkpoint is not None:
            what = "is not read, as space.latent.masks is resample"
            fix = "Remove it, or set space.latent.masks to encode"
            yield Problem("space.latent.mask_checkpoint", what, fix)

    def build(self, mode: Mode, device: torch.device, axes: int = 2) -> Space:
        from medgen_builtins.spaces._latent import LatentSpace

        masks = (self.mask_checkpoint or Path()) if self.masks == "encode" else None
        return LatentSpace(
            mode, self.factor, axes, self.checkpoint, masks, device, self.tile, self.scaling
        )


@hookimpl
def medgen_spaces() -> dict[str, type]:
    return {"latent": Latent}
