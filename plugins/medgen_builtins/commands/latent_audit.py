"""Measure what an autoencoder loses, before a model is trained in its latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from medgen import hookimpl

medgen_api = 1


@click.command("latent-audit")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--with", "layers", multiple=True, metavar="FILE", help="Layer to apply over the recipe."
)
@click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the figures as JSON.",
)
def latent_audit(
    recipe: str, overrides: tuple[str, ...], layers: tuple[str, ...], file: Path | None
) -> None:
    """Measure the best quality that a model in the latents of RECIPE can reach.

    Encodes and decodes the held-out slices: likeness of images and of lesions, whether small
    lesions survive, which channels are dead, and how much of the latents is noise.
    """
    from medgen_builtins.commands import _latent_audit

    _latent_audit.audit(recipe, overrides, layers, file)


@hookimpl
def medgen_commands() -> Sequence[click.Command]:
    return [latent_audit]
