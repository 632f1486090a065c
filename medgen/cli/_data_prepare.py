"""What `medgen data prepare` does."""

from __future__ import annotations

import click

from medgen.api.recipe import Recipe
from medgen.config.blame import mode_of
from medgen.run.assemble import prepare_data
from medgen.system import streams


def prepare(recipe: Recipe) -> None:
    """Fill the slice store of a recipe's data, and say what is in it."""
    streams.only_log()
    store = prepare_data(recipe, mode_of(recipe))
    what = recipe.data.noun if recipe.data.crop == "none" else "crops around lesions"
    for split in ("train", "val"):
        click.echo(
            f"{split:<6} {len(store.select(split))} {what} of {store.patients(split)} patients"
        )
