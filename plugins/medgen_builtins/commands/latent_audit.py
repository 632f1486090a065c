"""Measure what an autoencoder loses, before a model is trained in its latents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medgen import hookimpl

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe

medgen_api = 1


@click.command("latent-audit")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--with", "layers", multiple=True, metavar="FILE", help="Layer to apply over the recipe.")
@click.option("--json", "file", type=click.Path(path_type=Path), metavar="FILE", help="Also write the figures as JSON.")
def latent_audit(recipe: str, overrides: tuple[str, ...], layers: tuple[str, ...], file: Path | None) -> None:
    """Measure the best quality that a model in the latents of RECIPE can reach.

    Encodes and decodes the held-out slices: likeness of images and of lesions, whether small lesions survive, which
    channels are dead, and how much of the latents is noise.
    """
    from medgen.config.recipe import load
    from medgen.system.console import out, say
    from medgen_builtins.commands import _latent_figures

    figures = measure(load(recipe, overrides, layers))
    for table in _latent_figures.tables(figures):
        out.print(table)
    say(figures["verdict"])
    if file is not None:
        _write(file, figures)


def measure(recipe: Recipe) -> dict[str, Any]:
    """Measure all figures of a recipe's autoencoder, as plain values; `verdict` is a sentence. Raises RecipeError."""
    from medgen.data.store.loader import Loader
    from medgen.errors import Problem, RecipeError
    from medgen.run.assemble import build, default_device, prepare_data
    from medgen.system.console import warn
    from medgen_builtins.commands._latent_figures import Audit
    from medgen_builtins.spaces.latent import LatentSpace

    device = default_device()
    parts = build(recipe, device)
    if not isinstance(parts.space, LatentSpace):
        what = f"space.{recipe.names['space']}: has no latents, expected [space.latent]"
        raise RecipeError(Problem("", what, "Give a recipe of latent diffusion"))
    parts.space.shape(recipe.data.shape)
    store = prepare_data(recipe, parts.mode)
    split = "val" if len(store.select("val")) else "train"
    if split == "train":
        warn("no slices are held out: these are figures of the slices to train on, which the autoencoder may know.")
    feed = Loader(store, parts.mode, split)
    try:
        return Audit(parts, feed, device).run()
    finally:
        feed.close()


def _write(file: Path, figures: dict[str, Any]) -> None:
    from medgen.errors import Problem, StorageError, reason
    from medgen.system import files

    try:
        files.write(file, json.dumps(figures, indent=2) + "\n")
    except OSError as error:
        raise StorageError(Problem(file, reason(error), "Give --json another file")) from error


@hookimpl
def medgen_commands() -> Sequence[click.Command]:
    return [latent_audit]
