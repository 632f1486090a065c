"""Checks of a recipe that involve several keys or tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from medgen.api.recipe import CallbackSettings, Recipe
from medgen.api.settings import as_toml, did_you_mean
from medgen.api.tables import DEFAULT_MASK
from medgen.api.values import SEVERAL, Better
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
    """Find mistakes in [training], mode, strategy, space and network; not in callbacks, whose checks may call this."""
    yield from check_training(recipe)
    for part in (recipe.mode, recipe.strategy, recipe.space, recipe.network):
        yield from part.check(recipe)


def check_data(recipe: Recipe) -> Iterator[str]:
    """Find mistakes in [data] that involve several keys or tables."""
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
    """Find mistakes in [training] that involve several keys."""
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


def metrics(recipe: Recipe) -> dict[str, Better] | None:
    """Return what validation gives, by name; None where the strategy does not say."""
    own = None if recipe.strategy is None else recipe.strategy.metrics(recipe)
    if own is None:
        return None
    found: dict[str, Better] = dict.fromkeys(("loss/val", *(f"loss/val/{name}" for name in recipe.losses)), "low")
    found |= own
    for callback in recipe.callbacks.values():
        found |= callback.metrics(recipe) if isinstance(callback, CallbackSettings) else {}
    return found


def is_gain(recipe: Recipe, metric: str) -> bool:
    """Whether a metric is to be maximised: it has a leading minus, or is known to be better where it is high."""
    return metric.startswith("-") or (metrics(recipe) or {}).get(metric) == "high"


def check_metric(recipe: Recipe, key: str, metric: str) -> Iterator[str]:
    """Find a metric that nothing in the recipe gives, or a minus that would keep the worst."""
    known, name = metrics(recipe), metric.removeprefix("-")
    if known is None:
        return
    if name not in known:
        listed = did_you_mean(name, known) or f" Choose one of {', '.join(known)}."
        yield f"{key}: got {as_toml(metric)}, which no loss, strategy or callback of this recipe gives.{listed}"
    elif metric != name and known[name] == "low":
        yield f"{key}: got {as_toml(metric)}, but {name} is better where it is low. Leave the minus out."


def check_losses(recipe: Recipe) -> Iterator[str]:
    """Find losses that read a member that the strategy's prediction lacks."""
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
