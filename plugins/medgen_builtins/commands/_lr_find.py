"""Sweep the learning rates of a recipe in a run that is thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from medgen import Recipe
from medgen.config.recipe import load
from medgen.run import folder
from medgen.system.console import say
from medgen.training import rehearsal
from medgen_builtins.callbacks._lr_sweep import Finder

NAME = "lr_find"
"""The callback that sweeps."""


def load_alone(name: str, overrides: Sequence[str], layers: Sequence[str]) -> Recipe:
    """Load a recipe without other callbacks, and a folder: `lr_finder/diffusion_2d/bravo_128_...`."""
    recipe = load(name, overrides, layers)
    kind = Path(recipe.run.folder).parent.parts[:1]
    folder = "/".join(["lr_finder", *kind, "{mode}_{size}_{timestamp}"])
    run = attrs.evolve(recipe.run, folder=folder)
    return attrs.evolve(recipe, run=run, callbacks={NAME: recipe.callbacks[NAME]})


def find(recipe: Recipe) -> None:
    """Sweep in a run that is thrown away but for picture and numbers. Prints their folder."""
    with rehearsal.rehearsal(recipe) as run:
        where = folder.create(
            recipe
        )  # now, so that one that cannot be written shows before the work
        finder = run.callbacks[NAME]
        assert isinstance(finder, Finder)
        finder.measure(run, where)
    say(str(where))
