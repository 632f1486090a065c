"""Mistakes of a recipe that only several keys or tables together can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from medgen.api.recipe import Recipe
from medgen.api.settings import did_you_mean
from medgen.api.tables import DEFAULT_MASK
from medgen.api.values import SEVERAL
from medgen.config.blame import building

Check = Callable[[Recipe], Iterable[str]]


def checks(recipe: Recipe) -> Iterator[tuple[str, Check]]:
    """List every check with the table that it belongs to."""
    yield "data", check_data
    yield "training", check_training
    for kind, name in recipe.names.items():
        if part := getattr(recipe, kind):
            yield f"{kind}.{name}", part.check
    for kind in (*SEVERAL, "tables"):
        for name, part in getattr(recipe, kind).items():
            yield f"{kind}.{name}", part.check
    yield "losses", check_losses


def mistakes(recipe: Recipe) -> Iterator[str]:
    """Find mistakes in [training] and in what is composed, without those of callbacks, which may call this."""
    yield from check_training(recipe)
    for part in (recipe.mode, recipe.strategy, recipe.space, recipe.network):
        yield from part.check(recipe)


def check_data(recipe: Recipe) -> Iterator[str]:
    """Find mistakes in [data] that only several keys or tables together can tell."""
    data = recipe.data
    if not data.masks or DEFAULT_MASK in data.masks:
        return
    with building(f"mode.{recipe.names['mode']}"):
        names = recipe.mode.build().names
    if DEFAULT_MASK in names:
        likely = did_you_mean(DEFAULT_MASK, data.masks) or f' Add masks.{DEFAULT_MASK} = {{ file = "..." }}.'
        yield (
            f"data.masks: got {', '.join(data.masks)}, expected {DEFAULT_MASK} among them, which "
            f"mode.{recipe.names['mode']} reads.{likely}"
        )


def check_training(recipe: Recipe) -> Iterator[str]:
    """Find mistakes in [training] that only several keys or tables together can tell."""
    training = recipe.training
    if not training.steps and not training.epochs:
        yield "training.steps: got 0, and training.epochs is 0 too, expected one greater than 0. Give one."
    if training.steps and training.epochs:
        both = f"got {training.steps}, expected none beside training.epochs = {training.epochs}"
        yield f"training.steps: {both}. Remove one."
    if training.batch_size % training.accumulate:
        yield (
            f"training.accumulate: got {training.accumulate}, expected a divisor of training.batch_size = "
            f"{training.batch_size}. Change one of them."
        )


def check_losses(recipe: Recipe) -> Iterator[str]:
    """Find losses that read what the strategy's prediction does not have."""
    if recipe.strategy is None:
        return
    gives = recipe.strategy.gives
    for name, loss in recipe.losses.items():
        lacking = [each for each in loss.needs if each not in gives]
        if lacking:
            yield (
                f"losses.{name}: reads {', '.join(lacking)}, but strategy.{recipe.names['strategy']} gives only "
                f"{', '.join(gives)}. Choose another loss or strategy."
            )
