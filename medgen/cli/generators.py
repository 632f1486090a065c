"""From the options of `medgen generate` to what makes pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medgen.cli import options
from medgen.errors import Problem, RecipeError
from medgen.generation import pair_writer as work
from medgen.generation.anatomy import Anatomy
from medgen.generation.auto_steps import Make
from medgen.generation.combination import (
    makes_pairs,
    require_anatomy,
    require_image_model,
    require_mask_model,
)
from medgen.generation.folder_masks import FolderMasks
from medgen.generation.masks import DrawnMasks, JointMasks, MaskSource, ModelMasks
from medgen.generation.model import Model, load_model
from medgen.generation.numbers import EVERYWHERE, Range
from medgen.generation.pair_format import PairFormat

Masks = Callable[[int | None], MaskSource | None]
"""Gives a source of masks with a number of sampling steps."""


def maker(
    image_model: Path | None,
    seg_model: Path | None,
    seed: int,
    batch_size: int,
    max_area: float,
    max_attempts: int,
    inside: int,
    within: Range = EVERYWHERE,
    guidance: float | None = None,
    anatomy: Path | None = None,
) -> Make:
    """Load the models, and return what gives generators of pairs with any number of sampling steps."""
    image_model, seg_model = (
        options.in_run("--image-model", image_model),
        options.in_run("--seg-model", seg_model),
    )
    image = load_model(image_model, options.registry()) if image_model else None
    masks = _masks(seg_model, image, seed, max_area, max_attempts, within)
    given = _anatomy(anatomy, image, seed)
    return lambda steps: work.Generator(
        image, masks(steps), seed, steps, batch_size, inside, within, guidance, given
    )


def formed(make: Make, like: Path | None) -> Make:
    """Return the same generators with the form of their files: like a scan, if one is given, and with
    one label map of masks that came from one file.
    """
    first = make(None)
    model = first.masks.model if isinstance(first.masks, DrawnMasks) else first.image
    assert model is not None  # a folder of masks needs an image model
    data = (first.image or model).recipe.data
    form = PairFormat.of(first.grid, data, first.shown()[1], like)

    def made(steps: int | None) -> work.Generator:
        generator = make(steps)
        generator.form = form
        return generator

    return made


def _anatomy(folder: Path | None, image: Model | None, seed: int) -> Anatomy | None:
    """Open the images that an image model is given besides masks, if it is given any."""
    if image is None and folder is not None:
        what = "is given, but no image model is"
        raise RecipeError(Problem("--anatomy", what, "Give --image-model too"))
    if image is None:
        return None
    require_anatomy(image, given=folder is not None)
    return None if folder is None else Anatomy(folder, image, seed)


def _masks(
    seg_model: Path | None,
    image: Model | None,
    seed: int,
    max_area: float,
    max_attempts: int,
    within: Range,
) -> Masks:
    if seg_model is None and image is not None and makes_pairs(image):
        require_image_model(image, with_masks=False)
        return lambda steps: JointMasks(image, seed, steps, max_area, max_attempts, within)
    if seg_model is None:
        return lambda steps: None
    if seg_model.is_dir():
        if image is None:
            raise RecipeError(
                Problem(
                    "--seg-model",
                    f"{seg_model} is a folder of masks, which needs images",
                    "Give --image-model",
                )
            )
        folder = FolderMasks(seg_model, image, seed)
        return lambda steps: folder
    seg = load_model(seg_model, options.registry())
    require_mask_model(seg)
    if image:
        require_image_model(image, with_masks=True)
    return lambda steps: ModelMasks(seg, seed, steps, max_area, max_attempts, image, within)
