"""`medgen recipe`: list recipes and show them as TOML."""

from __future__ import annotations

import click

from medgen.cli import options
from medgen.cli.options import load_recipe, overrides_argument, with_option
from medgen.config.recipe import shipped, to_toml


@click.group(cls=options.Group)
def recipe() -> None:
    """List recipes and show them as TOML."""


@recipe.command("list")
def recipe_list() -> None:
    """List the recipes that come with medgen."""
    for name, summary in shipped():
        click.echo(f"{name:<24} {summary}")


@recipe.command("show")
@click.argument("recipe")
@overrides_argument
@with_option
@click.option("--only", metavar="TABLE", help="Table to print, such as training; default: all.")
def recipe_show(
    recipe: str, overrides: tuple[str, ...], layers: tuple[str, ...], only: str | None
) -> None:
    """Print the resolved recipe with all defaults, as TOML that loads again."""
    text = to_toml(load_recipe(recipe, overrides, layers), only)
    click.echo(
        "".join(
            each if each.isprintable() or each == "\n" else f"\\U{ord(each):08x}" for each in text
        ),
        nl=False,
    )
