"""Find a learning rate for a recipe before it is trained."""

from __future__ import annotations

from collections.abc import Sequence

import click

from medgen import hookimpl
from medgen.config.overlay import given_as

medgen_api = 1
NAME = "lr_find"


@click.command("lr-find")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--with", "layers", multiple=True, metavar="FILE", help="Layer to apply over the recipe."
)
@click.option(
    "--min-lr",
    type=float,
    metavar="RATE",
    help="First learning rate; default: the recipe's, or 1e-6.",
)
@click.option(
    "--max-lr", type=float, metavar="RATE", help="Last learning rate; default: the recipe's, or 1."
)
@click.option(
    "--steps", type=int, metavar="N", help="Number of rates; default: the recipe's, or 100."
)
def lr_find(
    recipe: str,
    overrides: tuple[str, ...],
    layers: tuple[str, ...],
    min_lr: float | None,
    max_lr: float | None,
    steps: int | None,
) -> None:
    """Find a learning rate for RECIPE: a few steps at rising rates, a plot, a suggestion.

    Every rate trains on the next batch and is scored on one fixed probe. No checkpoint is written.
    """
    from medgen_builtins.commands import _lr_find

    given = {"min_lr": min_lr, "max_lr": max_lr, "steps": steps}
    options = [
        f"callbacks.{NAME}.{key}={value}" for key, value in given.items() if value is not None
    ]
    names = {f"callbacks.{NAME}.{key}": f"--{key.replace('_', '-')}" for key in given}
    with given_as(names):
        resolved = _lr_find.load_alone(
            recipe, [*overrides, f"callbacks.{NAME}={{}}", *options], layers
        )
    _lr_find.find(resolved)


@hookimpl
def medgen_commands() -> Sequence[click.Command]:
    return [lr_find]
