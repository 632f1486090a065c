"""What `medgen data check` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from medgen.api.tables import DataSettings
from medgen.cli.options import load_recipe
from medgen.config.blame import mode_of
from medgen.config.recipe import data_settings
from medgen.data.scans.check import check as find_faults
from medgen.data.scans.report import as_json, show
from medgen.errors import DataError, Problem, StorageError
from medgen.system import console, streams


def check(folder: Path, overrides: Sequence[str], recipe: str | None, target: str | None) -> int:
    """List every fault of the scans in a folder, also as JSON in a file. Returns the exit code."""
    settings, channels = _data_settings(folder, overrides, recipe)
    with console.progress("check", unit="files") as bar:
        report = find_faults(settings, channels, bar.update)
    show(report, console.err if target == "-" else console.out)
    if target:
        _write_text(target, as_json(report))
    return DataError.exit_code if report.faults else 0


def _data_settings(
    folder: Path, overrides: Sequence[str], recipe: str | None
) -> tuple[DataSettings, Sequence[str] | None]:
    """Return settings for the scans in a folder, and the channels that the recipe reads, None
    without a recipe.
    """
    if recipe:
        resolved = load_recipe(recipe, overrides)
        return attrs.evolve(resolved.data, root=folder), mode_of(resolved).names
    return attrs.evolve(data_settings(overrides), root=folder), None


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
        raise StorageError(
            Problem(target, f"cannot be written ({error.strerror})", "Name another file")
        ) from None
