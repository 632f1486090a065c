"""`medgen data`: find what is wrong with a dataset, fill the slice store."""

from __future__ import annotations

from pathlib import Path

import click

from medgen.cli import options
from medgen.cli.options import FOLDER, load_recipe, overrides_argument, with_option


@click.group(cls=options.OpenGroup)
def data() -> None:
    """Check a dataset, fill the slice store, make a demo dataset."""


@data.command("check")
@click.argument("folder", metavar="DIR", type=FOLDER)
@overrides_argument
@click.option(
    "--recipe", metavar="RECIPE", help="Check the channels, masks and settings of a recipe."
)
@click.option(
    "--json", "target", metavar="FILE", help="Also write the result as JSON; -: to stdout."
)
def data_check(
    folder: Path, overrides: tuple[str, ...], recipe: str | None, target: str | None
) -> int:
    """List every fault of the scans in DIR, and what is legal but odd.

    KEY=VALUE are settings as in a recipe: data.files.bravo='T1c_*.nii.gz'. The exit code is 3 if
    there are faults.
    """
    from medgen.cli import _data_check

    return _data_check.check(folder, overrides, recipe, target)


@data.command("prepare")
@click.argument("recipe")
@overrides_argument
@with_option
def data_prepare(recipe: str, overrides: tuple[str, ...], layers: tuple[str, ...]) -> None:
    """Fill the slice store of RECIPE's data, so that training starts at once."""
    resolved = load_recipe(recipe, overrides, layers)
    from medgen.cli import _data_prepare

    _data_prepare.prepare(resolved)
