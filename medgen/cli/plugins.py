"""`medgen plugins`: list installed plugins and show their settings."""

from __future__ import annotations

import click

from medgen.cli import options


@click.group(cls=options.Group)
def plugins() -> None:
    """List installed plugins and show their settings."""


@plugins.command("list")
def plugins_list() -> None:
    """List every plugin with its kind and distribution; broken ones with the reason."""
    from medgen.cli import listing

    listing.table(options.registry())


@plugins.command("show")
@click.argument("name")
def plugins_show(name: str) -> None:
    """Show a plugin's purpose, and a block with its defaults to paste into a recipe."""
    from medgen.cli import listing

    listing.page(options.registry(), name)
