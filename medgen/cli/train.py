"""`medgen train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medgen.cli.options import load_recipe, overrides_argument, with_option
from medgen.config.overlay import given_as
from medgen.errors import CheckpointError, Problem, RecipeError

if TYPE_CHECKING:
    from medgen.api.recipe import Recipe


@click.command()
@click.argument("recipe", required=False)
@overrides_argument
@with_option
@click.option(
    "--resume",
    metavar="RUN|auto",
    help="Run folder to continue; auto: the newest unfinished run of this recipe, else a new run.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be trained and what it costs. Keeps the slice store, and nothing else.",
)
@click.option(
    "--devices", type=click.IntRange(1), metavar="N", help="Number of devices, one process on each."
)
@click.pass_context
def train(
    context: click.Context, recipe: str | None, overrides: tuple[str, ...], layers: tuple[str, ...],
    resume: str | None, dry_run: bool, devices: int | None,
) -> int:  # fmt: skip
    """Train RECIPE, a TOML file or the name of a recipe that comes with medgen."""
    resume = resume if resume in (None, "auto") else str(_run_folder(Path(resume)))
    resolved = _resolved(recipe, overrides, layers, resume, devices)
    from medgen.cli import _train

    if dry_run:
        _train.try_out(resolved)
        return 0
    return _train.train(context.find_root().obj, resolved, resume)


def _resolved(
    recipe: str | None,
    overrides: Sequence[str],
    layers: Sequence[str],
    resume: str | None,
    devices: int | None,
) -> Recipe:
    """Load the recipe to train; for a resumed run its own."""
    more = [f"training.devices={devices}"] if devices else []
    with given_as({"training.devices": "--devices"} if devices else {}):
        if resume and resume != "auto":
            return _recipe_of(
                Path(resume), [*([recipe, *overrides] if recipe else []), *more], layers
            )
        if recipe:
            return load_recipe(recipe, [*overrides, *more], layers)
    raise RecipeError(
        Problem(
            "RECIPE",
            "none given",
            "Name one (`medgen recipe list` shows those that come along), or --resume RUN",
        )
    )


def _run_folder(path: Path) -> Path:
    """Return the folder of the run to resume, for which its latest.pt may stand. Raises
    CheckpointError for others.
    """
    if path.is_file() and path.name == "latest.pt":
        return path.parent
    if path.is_file() and path.suffix == ".pt":
        raise CheckpointError(
            Problem(
                path,
                "--resume goes on from the newest checkpoint of a run",
                f"Use --resume {path.parent}, or begin a new run from this one with training.init_from={path}",
            )
        )
    if path.is_file():
        raise CheckpointError(
            Problem(
                path,
                "is a file, expected the folder of a run",
                "Use --resume RUN, such as runs/bravo",
            )
        )
    return path


def _recipe_of(folder: Path, overrides: Sequence[str], layers: Sequence[str]) -> Recipe:
    """Load the recipe of the run to resume."""
    strange = [each for each in overrides if "=" not in each]
    if strange:
        raise RecipeError(
            Problem(
                strange[0],
                "a run is resumed with its own recipe",
                f"Give only --resume {folder} and KEY=VALUE",
            )
        )
    from medgen.cli import _train

    return _train.own_recipe(folder, overrides, layers)
