"""Estimate the tissues of scans, for models that are given them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from medgen import hookimpl

medgen_api = 1


@click.command("data tissue")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--image",
    default="bravo",
    show_default=True,
    metavar="NAME",
    help="Scan to estimate them from, of any contrast.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    default="brain",
    show_default=True,
    metavar="CKPT",
    help="Weights of recipes/brain_tissue.toml.",
)
def tissue(folder: Path, out: Path, overrides: tuple[str, ...], image: str, model: Path) -> None:
    """Write OUT/PATIENT/tissue.nii.gz for every patient in DIR, with links to their scans and masks.

    An image of tissues shows CSF, grey and white matter as three levels of grey, without lesions. OUT
    is a dataset for models that are given `tissue`, and an --anatomy of `medgen generate`. KEY=VALUE
    are settings as in a recipe: data.files.bravo='T1c_*.nii.gz'.
    """
    from medgen_builtins.commands import _tissue

    _tissue.write(folder, out, overrides, image, model)


@hookimpl
def medgen_commands() -> Sequence[click.Command]:
    return [tissue]
