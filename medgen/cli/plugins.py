"""`medgen plugins`: what is installed, and by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from medgen.cli import options

if TYPE_CHECKING:
    pass


@click.group(cls=options.Group)
def plugins() -> None:
    """What is installed, and by whom."""


@plugins.command("list")
def plugins_list() -> None:
    """Every plugin, its kind and the distribution that brings it; broken ones with the reason."""
    from medgen.cli import listing

    listing.table(options.registry())


@plugins.command("show")
@click.argument("name")
def plugins_show(name: str) -> None:
    """What a plugin is for, and a block to paste into a recipe."""
    from medgen.cli import listing

    listing.page(options.registry(), name)
