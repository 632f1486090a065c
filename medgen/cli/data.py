"""`medgen data`: find what is wrong with a dataset, fill the slice store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medgen.cli import options
from medgen.errors import (
    DataError,
    Problem,
    StorageError,
)
from medgen.system import streams

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe
    from medgen.api.tables import DataSettings
    from medgen.api.values import Mode
from medgen.cli.options import FOLDER, overrides_argument, with_option


@click.group(cls=options.OpenGroup)
def data() -> None:
    """Check a dataset, fill the slice store, make a demo dataset."""


@data.command("check")
@click.argument("folder", metavar="DIR", type=FOLDER)
@overrides_argument
@click.option("--recipe", metavar="RECIPE", help="Check the channels, masks and settings of a recipe.")
@click.option("--json", "target", metavar="FILE", help="Also write the result as JSON; -: to stdout.")
def data_check(folder: Path, overrides: tuple[str, ...], recipe: str | None, target: str | None) -> int:
    """List every fault of the scans in DIR, and what is legal but odd.

    KEY=VALUE are settings as in a recipe: data.files.bravo='T1c_*.nii.gz'. The exit code is 3 if there are faults.
    """
    from medgen.data.scans.check import check
    from medgen.data.scans.report import as_json, show
    from medgen.system import console

    settings, channels = _data_settings(folder, overrides, recipe)
    with console.progress("check", unit="files") as bar:
        report = check(settings, channels, bar.update)
    show(report, console.err if target == "-" else console.out)
    if target:
        _write_text(target, as_json(report))
    return DataError.exit_code if report.faults else 0


def _data_settings(
    folder: Path, overrides: Sequence[str], recipe: str | None
) -> tuple[DataSettings, Sequence[str] | None]:
    """Return settings for the scans in a folder, and the channels that the recipe reads, None without a recipe."""
    import attrs

    if recipe:
        from medgen.config.recipe import load

        resolved = load(recipe, overrides, (), options.registry())
        return attrs.evolve(resolved.data, root=folder), _mode(resolved).names
    from medgen.config.recipe import data_settings

    return attrs.evolve(data_settings(overrides), root=folder), None


def _mode(recipe: Recipe) -> Mode:
    from medgen.config.blame import building

    with building(f"mode.{recipe.names['mode']}"):
        return recipe.mode.build()


def _write_text(target: str, text: str) -> None:
    """Write to a file, or to stdout for `-`. Raises StorageError."""
    if target == "-":
        click.echo(text, nl=False)
        if cut := streams.cut_result():
            raise StorageError(cut)
        return
    try:
        with click.open_file(target, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StorageError(Problem(target, f"cannot be written ({error.strerror})", "Name another file")) from None


@data.command("prepare")
@click.argument("recipe")
@overrides_argument
@with_option
def data_prepare(recipe: str, overrides: tuple[str, ...], layers: tuple[str, ...]) -> None:
    """Fill the slice store of RECIPE's data, so that training starts at once."""
    from medgen.config.recipe import load

    resolved = load(recipe, overrides, layers, options.registry())
    from medgen.run.assemble import prepare_data

    streams.only_log()
    store = prepare_data(resolved, _mode(resolved))
    what = "slices" if resolved.data.crop == "none" else "crops around lesions"
    for split in ("train", "val"):
        click.echo(f"{split:<6} {len(store.select(split))} {what} of {store.patients(split)} patients")
