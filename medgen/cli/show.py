"""`medgen show`: pairs beside real ones, as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from medgen.cli.options import FOLDER, say_result


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...")
@click.option(
    "--output", default="show.png", show_default=True, type=FOLDER, help="The picture, a PNG."
)
@click.option(
    "--count",
    default=12,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Samples of each folder.",
)
def show(folders: tuple[str, ...], output: Path, count: int) -> None:
    """Show samples of FOLDERs below each other: of real scans, pairs, or inserted lesions.

    Each is a recipe, a run or a folder of scans, or what `generate` or `insert` wrote. Real slices
    and pairs are shown with and without the outline of their lesions, inserted ones before and after.
    """
    from medgen.generation import side_by_side

    side_by_side.save(folders, output, count)
    say_result(output)
