"""Measure what an autoencoder loses, and print or write the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medgen import Problem, Recipe, RecipeError, StorageError
from medgen.config.recipe import load
from medgen.data.store.loader import Loader
from medgen.errors import reason
from medgen.run.assemble import build, default_device, prepare_data
from medgen.system import files
from medgen.system.console import out, say, warn
from medgen_builtins.commands import _latent_figures
from medgen_builtins.commands._latent_figures import Audit
from medgen_builtins.spaces._latent import LatentSpace


def audit(recipe: str, overrides: Sequence[str], layers: Sequence[str], file: Path | None) -> None:
    """Print the figures of a recipe's autoencoder, and write them as JSON if a file is named."""
    figures = measure(load(recipe, overrides, layers))
    for table in _latent_figures.tables(figures):
        out.print(table)
    say(figures["verdict"])
    if file is not None:
        _write(file, figures)


def measure(recipe: Recipe) -> dict[str, Any]:
    """Measure a recipe's autoencoder: plain values, and a sentence `verdict`. Raises RecipeError."""
    device = default_device()
    parts = build(recipe, device)
    if not isinstance(parts.space, LatentSpace):
        what = f"space.{recipe.names['space']}: has no latents, expected [space.latent]"
        raise RecipeError(Problem("", what, "Give a recipe of latent diffusion"))
    parts.space.shape(recipe.data.shape)
    store = prepare_data(recipe, parts.mode)
    split = "val" if len(store.select("val")) else "train"
    if split == "train":
        warn(
            "no slices are held out: these are figures of the slices to train on, which the autoencoder may know."
        )
    feed = Loader(store, parts.mode, split)
    try:
        return Audit(parts, feed, device).run()
    finally:
        feed.close()


def _write(file: Path, figures: dict[str, Any]) -> None:
    try:
        files.write(file, json.dumps(figures, indent=2) + "\n")
    except OSError as error:
        raise StorageError(Problem(file, reason(error), "Give --json another file")) from error
