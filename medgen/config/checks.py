"""Checks of a recipe that involve several keys or tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from medgen.api.messages import as_toml, did_you_mean
from medgen.api.recipe import CallbackSettings, Recipe
from medgen.api.tables import DEFAULT_MASK, sides
from medgen.api.values import SEVERAL, Better, Mode
from medgen.config.blame import building, mode_of
from medgen.config.number_checks import check_numbers
from medgen.errors import Problem, RecipeError

Check = Callable[[Recipe], Iterable[Problem]]


def checks(recipe: Recipe) -> Iterator[tuple[str, Check]]:
    """List every check with the table that it belongs to."""
    yield "data", check_data
    yield "data", check_grid
    yield "data", check_patches
    yield "data", check_augment
    yield "mode", check_numbers
    yield "strategy", check_guidance
    yield "training", check_training
    for kind, name in recipe.names.items():
        if part := getattr(recipe, kind):
            yield f"{kind}.{name}", part.check
    for kind in (*SEVERAL, "tables"):
        for name, part in getattr(recipe, kind).items():
            yield f"{kind}.{name}", part.check
    yield "losses", check_losses


def mistakes(recipe: Recipe) -> Iterator[Problem]:
    """Find mistakes in [training], mode, strategy, space and network; not in callbacks, whose
    checks may call this.
    """
    yield from check_training(recipe)
    for part in (recipe.mode, recipe.strategy, recipe.space, recipe.network):
        yield from part.check(recipe)


def check_data(recipe: Recipe) -> Iterator[Problem]:
    """Find mistakes in [data] that involve several keys or tables."""
    data = recipe.data
    if not data.masks or DEFAULT_MASK in data.masks:
        return
    with building(f"mode.{recipe.names['mode']}"):
        names = recipe.mode.build().names
    if DEFAULT_MASK in names:
        reader = f"mode.{recipe.names['mode']}"
        what = (
            f"got {', '.join(data.masks)}, expected {DEFAULT_MASK} among them, which {reader} reads"
        )
        likely = did_you_mean(DEFAULT_MASK, data.masks)
        yield Problem(
            "data.masks", what, likely or f'Add masks.{DEFAULT_MASK} = {{ file = "..." }}'
        )


def check_grid(recipe: Recipe) -> Iterator[Problem]:
    """Find settings of slices in a recipe of volumes, and the other way round."""
    data, given = recipe.data, len(sides(recipe.data.image_size))
    if data.axes == 2 and given > 1:
        what = f"got {given} numbers, expected one, as data.dimensions is 2"
        yield Problem("data.image_size", what, "Give one, or set data.dimensions=3")
    if data.axes == 3 and data.axis != "axial":
        what = f"got {as_toml(data.axis)}, but volumes are not cut into slices"
        yield Problem("data.axis", what, "Leave it out")


def check_patches(recipe: Recipe) -> Iterator[Problem]:
    """Find crops that are larger than samples, and what cannot be done with crops."""
    data, key = recipe.data, "data.patch_size"
    if data.patch_size is None:
        if data.lesion_patches:
            what = f"got {data.lesion_patches:g}, but no crops are trained on"
            yield Problem("data.lesion_patches", what, f"Give {key}")
        return
    given = as_toml(data.patch_size)
    if data.axes == 2 and len(sides(data.patch_size)) > 1:
        yield Problem(key, f"got {given}, expected one number, as data.dimensions is 2", "Give one")
    elif any(side > whole for side, whole in zip(data.trained_shape, data.shape, strict=False)):
        what = f"got {given}, expected at most data.image_size = {as_toml(data.image_size)}"
        yield Problem(key, what, "Make it smaller, or leave it out")
    if data.crop != "none":
        what = f'got {given}, but data.crop = "{data.crop}" cuts crops of data.image_size itself'
        yield Problem(key, what, "Leave one of them out")
    if data.augment.on:
        what = f"is on, but changes whole {data.noun}, and crops are trained on (data.patch_size)"
        yield Problem("data.augment", what, "Leave one of them out")


def check_augment(recipe: Recipe) -> Iterator[Problem]:
    """Find changes of samples that would make them something else."""
    data = recipe.data
    if data.augment.flip and data.axis == "sagittal":
        what = f"got {data.augment.flip:g}, but sagittal slices (data.axis) have no left and right"
        yield Problem("data.augment.flip", what, "Remove it")
    if data.augment.on and data.crop != "none":
        what = f'is on, but changes whole {data.noun}, and data.crop = "{data.crop}" moves crops itself'
        yield Problem("data.augment", what, "Remove it")


def check_guidance(recipe: Recipe) -> Iterator[Problem]:
    """Find guidance by the mask of a model that is given none, or that makes a region alone."""
    weight = getattr(recipe.strategy, "guidance", 0.0)
    if not weight or recipe.mode is None:
        return
    mode = mode_of(recipe)
    if not isinstance(mode, Mode):
        return
    masks = set(recipe.data.masks or {DEFAULT_MASK})
    if mode.margin or not masks & set(mode.condition):
        what = f"got {weight:g}, but mode.{recipe.names['mode']} makes no whole image of a mask"
        yield Problem(f"strategy.{recipe.names['strategy']}.guidance", what, "Leave it out")


def check_training(recipe: Recipe) -> Iterator[Problem]:
    """Find mistakes in [training] that involve several keys."""
    training = recipe.training
    if not training.steps and not training.epochs:
        what = "got 0, and training.epochs is 0 too, expected one greater than 0"
        yield Problem("training.steps", what, "Give one")
    if training.steps and training.epochs:
        what = f"got {training.steps}, expected none beside training.epochs = {training.epochs}"
        yield Problem("training.steps", what, "Remove one")
    if training.batch_size % training.accumulate:
        expected = f"a divisor of training.batch_size = {training.batch_size}"
        what = f"got {training.accumulate}, expected {expected}"
        yield Problem("training.accumulate", what, "Change one of them")


def metrics(recipe: Recipe) -> dict[str, Better] | None:
    """Return what validation gives, by name; None where the strategy does not say."""
    own = None if recipe.strategy is None else recipe.strategy.metrics(recipe)
    if own is None:
        return None
    found: dict[str, Better] = dict.fromkeys(
        ("loss/val", *(f"loss/val/{name}" for name in recipe.losses)), "low"
    )
    found |= own
    for callback in recipe.callbacks.values():
        found |= callback.metrics(recipe) if isinstance(callback, CallbackSettings) else {}
    return found


def is_gain(recipe: Recipe, metric: str) -> bool:
    """Whether a metric is to be maximised: it has a leading minus, or is known to be better where
    it is high.
    """
    return metric.startswith("-") or (metrics(recipe) or {}).get(metric) == "high"


def check_metric(recipe: Recipe, key: str, metric: str) -> Iterator[Problem]:
    """Find a metric that nothing in the recipe gives, or a minus that would keep the worst."""
    known, name = metrics(recipe), metric.removeprefix("-")
    if known is None:
        return
    if name not in known:
        likely = did_you_mean(name, known) or f"Choose one of {', '.join(known)}"
        yield Problem(
            key,
            f"got {as_toml(metric)}, which no loss, strategy or callback of this recipe gives",
            likely,
        )
    elif metric != name and known[name] == "low":
        yield Problem(
            key,
            f"got {as_toml(metric)}, but {name} is better where it is low",
            "Leave the minus out",
        )


def check_losses(recipe: Recipe) -> Iterator[Problem]:
    """Find losses that read a member that the strategy's prediction lacks."""
    if recipe.strategy is None:
        return
    gives = recipe.strategy.gives
    for name, loss in recipe.losses.items():
        lacking = [each for each in loss.needs if each not in gives]
        if lacking:
            given = f"strategy.{recipe.names['strategy']} gives only {', '.join(gives)}"
            what = f"reads {', '.join(lacking)}, but {given}"
            yield Problem(f"losses.{name}", what, "Choose another loss or strategy")


def require_equal_shares(recipe: Recipe, devices: int) -> None:
    """Raise RecipeError if the batch cannot be divided by `devices` ranks and micro-batches."""
    training = recipe.training
    if training.batch_size % (devices * training.accumulate):
        raise RecipeError(
            Problem(
                "training.batch_size",
                f"got {training.batch_size}, expected a multiple of {devices} devices x training.accumulate = "
                f"{training.accumulate}",
                "Change one of them",
            )
        )
