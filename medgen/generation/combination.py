"""Check that models and masks fit together, before anything is generated."""

from __future__ import annotations

from collections.abc import Sequence

from medgen.data.scans.layouts import mask
from medgen.data.store.mask_grid import MOST, is_absurd
from medgen.errors import Problem, RecipeError
from medgen.generation.model import Model
from medgen.system.console import warn


def require_mask_model(model: Model) -> None:
    """Refuse a `--seg-model` that generates anything but masks, or needs a condition. Raises
    RecipeError.
    """
    mode = model.parts.mode
    made, given = ", ".join(mode.images), ", ".join(mode.condition)
    scans = [name for name in mode.images if name not in model.masks]
    if scans and mode.condition:
        what = f"makes {made} given {given}, not masks"
        raise RecipeError(
            Problem("--seg-model", what, "Give it as --image-model, and a model of masks here")
        )
    if scans:
        what = f"makes {made}, of which {', '.join(scans)} is no mask (its masks are {', '.join(sorted(model.masks))})"
        raise RecipeError(
            Problem("--seg-model", what, "Give a model of masks, such as one of mode seg")
        )
    if mode.condition:
        what = f"makes {made} given {given}, which generate cannot give it"
        raise RecipeError(
            Problem("--seg-model", what, "Give a model that makes masks from noise alone")
        )
    _require_names("--seg-model", model)


def makes_pairs(model: Model) -> bool:
    """Tell whether a model makes images together with their masks, given nothing."""
    mode = model.parts.mode
    return not mode.condition and len({name in model.masks for name in mode.images}) == 2


def require_image_model(model: Model, with_masks: bool) -> None:
    """Refuse an `--image-model` that generates only masks, or takes no masks if there are some."""
    mode = model.parts.mode
    made = ", ".join(mode.images)
    if mode.margin:
        what = f"paints lesions into given {made} (mode {model.recipe.names['mode']}), and makes no whole image"
        raise RecipeError(Problem("--image-model", what, "Use it with `medgen insert`"))
    if all(name in model.masks for name in mode.images):
        raise RecipeError(
            Problem("--image-model", f"makes {made}, which are masks", "Give it as --seg-model")
        )
    if with_masks and not model.masks_given:
        given = ", ".join(mode.condition) or "nothing"
        what = f"makes {made} given {given}, so that masks (--seg-model) would not fit its images"
        fix = "Leave --seg-model out, or give a model of images given masks"
        raise RecipeError(Problem("--image-model", what, fix))
    if model.masks_given and not with_masks:
        needed = ", ".join(model.masks_given)
        raise RecipeError(
            Problem(
                "--seg-model", f"the image model needs {needed}", "Give a mask model or a folder"
            )
        )
    _require_names("--image-model", model)


def require_anatomy(model: Model, given: bool) -> None:
    """Refuse an `--image-model` that needs images which nothing brings, or an anatomy that none needs."""
    made, needed = ", ".join(model.parts.mode.images), ", ".join(model.scans_given)
    if needed and not given:
        what = f"the image model makes {made} given {needed}"
        fix = (
            f"Give a folder of patients with {needed}; `medgen data tissue` makes one of any scans"
        )
        raise RecipeError(Problem("--anatomy", what, fix))
    if given and not needed:
        what = f"is given, but the image model makes {made} given no image"
        raise RecipeError(Problem("--anatomy", what, "Leave it out"))


def require_same_masks(given: Sequence[str], image: Model) -> None:
    """Refuse masks other than those that the image model was trained on."""
    wanted = image.masks_given
    if tuple(given) != wanted:
        what = f"gives {', '.join(given)}, the image model (--image-model) was trained on {', '.join(wanted)}"
        raise RecipeError(
            Problem("--seg-model", what, "Use a mask model of the same masks in the same order")
        )


def require_same_slices(masks: Model, image: Model) -> None:
    """Refuse masks of another axis or unit; warn of masks made from other labels."""
    if masks.grid.axis != image.grid.axis:
        makes, needed = (each.grid.axis or "volumes of" for each in (masks, image))
        key = "data.axis" if masks.grid.axis and image.grid.axis else "data.dimensions"
        what = f"makes {makes} masks, the image model (--image-model) makes {needed} images"
        raise RecipeError(Problem("--seg-model", what, f"Train both with the same {key}"))
    if is_absurd(masks.grid.shape, masks.grid.spacing, image.grid):
        own = f"{masks.recipe.data.noun} of {masks.grid}"
        what = (
            f"has {own}, the image model (--image-model) of {image.grid}, over {MOST:g} times apart"
        )
        raise RecipeError(
            Problem("--seg-model", what, "Check the unit of the scans, and train one of them anew")
        )
    for name in image.masks_given:
        one, other = (sorted(set(mask(each.recipe.data, name).labels)) for each in (masks, image))
        if one != other:
            said = [
                f"labels {', '.join(map(str, each))}" if each else "every label"
                for each in (one, other)
            ]
            warn(
                f"--seg-model: its {name} was made of {said[0]}, that of the image model of {said[1]}."
            )


def _require_names(option: str, model: Model) -> None:
    """Refuse a pooled model: which of its images a sample shows is unknown."""
    mode = model.parts.mode
    if mode.pooled and len(mode.images) > 1:
        what = (
            f"makes {' or '.join(mode.images)} in one channel (pooled), which gives a file no name"
        )
        raise RecipeError(Problem(option, what, "Train it with mode.images.pooled=false"))
