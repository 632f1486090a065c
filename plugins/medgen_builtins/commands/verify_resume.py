"""Proves that a recipe can be stopped and resumed: k + k steps against 2k steps, each in a process
of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from medgen import hookimpl

medgen_api = 1


@click.command("verify-resume")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--with", "layers", multiple=True, metavar="FILE", help="Layer to apply over the recipe."
)
@click.option(
    "--steps",
    type=click.IntRange(1, 10**6),
    default=3,
    show_default=True,
    help="Steps before and after the stop.",
)
def verify_resume(
    recipe: str, overrides: tuple[str, ...], layers: tuple[str, ...], steps: int
) -> None:
    """Check that RECIPE, stopped and resumed, gives bit for bit what it gives without a stop.

    Train 2 x --steps steps twice in temporary folders, once with a stop, and compare everything.
    """
    from medgen_builtins.commands import _verify_resume

    _verify_resume.verify(recipe, overrides, layers, steps)


@hookimpl
def medgen_commands() -> Sequence[click.Command]:
    return [verify_resume]
