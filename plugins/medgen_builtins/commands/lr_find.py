"""Find a learning rate for a recipe before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medgen import hookimpl
from medgen_builtins.callbacks._lr_sweep import Finder

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe

medgen_api = 1
NAME = "lr_find"


@click.command("lr-find")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--with", "layers", multiple=True, metavar="FILE", help="Layer to apply over the recipe.")
@click.option("--min-lr", type=float, metavar="RATE", help="First learning rate; default: the recipe's, or 1e-6.")
@click.option("--max-lr", type=float, metavar="RATE", help="Last learning rate; default: the recipe's, or 1.")
@click.option("--steps", type=int, metavar="N", help="Number of rates; default: the recipe's, or 100.")
def lr_find(
    recipe: str,
    overrides: tuple[str, ...],
    layers: tuple[str, ...],
    min_lr: float | None,
    max_lr: float | None,
    steps: int | None,
) -> None:
    """Find a learning rate for RECIPE: a few steps at rising rates, a picture of the loss, and a suggestion.

    Every rate trains on the next batch and is scored on one fixed probe. No checkpoint is written.
    """
    from medgen.config.overlay import given_as
    from medgen.config.recipe import load
    from medgen.system.console import say

    given = {"min_lr": min_lr, "max_lr": max_lr, "steps": steps}
    options = [f"callbacks.{NAME}.{key}={value}" for key, value in given.items() if value is not None]
    names = {f"callbacks.{NAME}.{key}": f"--{key.replace('_', '-')}" for key in given}
    with given_as(names):
        resolved = alone(load(recipe, [*overrides, f"callbacks.{NAME}={{}}", *options], layers))
    say(str(find(resolved)))


def alone(recipe: Recipe) -> Recipe:
    """Return the recipe without other callbacks, with the folder of a sweep: `lr_finder/diffusion_2d/bravo_128_...`."""
    import attrs

    kind = Path(recipe.run.folder).parent.parts[:1]
    folder = "/".join(["lr_finder", *kind, "{mode}_{size}_{timestamp}"])
    run = attrs.evolve(recipe.run, folder=folder)
    return attrs.evolve(recipe, run=run, callbacks={NAME: recipe.callbacks[NAME]})


def find(recipe: Recipe) -> Path:
    """Sweep in a run that is thrown away; only the picture and the numbers stay. Returns their folder."""
    from medgen.run import folder
    from medgen.training import rehearsal

    with rehearsal.rehearsal(recipe) as run:
        where = folder.create(recipe)  # now, so that one that cannot be written shows before the work
        finder = run.callbacks[NAME]
        assert isinstance(finder, Finder)
        finder.measure(run, where)
    return where


@hookimpl
def medgen_commands() -> Sequence[click.Command]:
    return [lr_find]
