"""`medgen export`: pairs in the arrangement of other tools."""

from __future__ import annotations

from pathlib import Path

import click

from medgen.cli.options import FOLDER, overrides_argument, seed_option


@click.command()
@click.argument("pairs", type=FOLDER, metavar="PAIRS")
@overrides_argument
@click.option(
    "--nnunet",
    "out",
    type=FOLDER,
    required=True,
    metavar="OUT",
    help="Folder for OUT/Dataset###_NAME.",
)
@click.option(
    "--real",
    metavar="DATA",
    help="Real scans beside the pairs: a recipe, a run, a folder of patients.",
)
@click.option(
    "--generator-saw",
    "saw",
    type=click.Choice(["train", "all", "none"]),
    default="train",
    show_default=True,
    help="Which persons of DATA the pairs' generator was trained on.",
)
@click.option(
    "--id",
    "number",
    type=click.IntRange(1, 999),
    default=500,
    show_default=True,
    help="The dataset's number.",
)
@click.option("--name", default="Medgen", show_default=True, help="The dataset's name.")
@seed_option("folds")
def export(
    pairs: Path,
    overrides: tuple[str, ...],
    out: Path,
    real: str | None,
    saw: str,
    number: int,
    name: str,
    seed: int,
) -> None:
    """Write PAIRS as a raw dataset of nnU-Net v2, with or without real scans.

    Pairs that are volumes make a 3D dataset. KEY=VALUE are of DATA's recipe. In
    splits_final.json pairs are only ever trained on, and not where a person is validated whom their
    generator saw.
    """
    from medgen.cli import _export

    _export.export(pairs, overrides, out, real, saw, number=number, name=name, seed=seed)
