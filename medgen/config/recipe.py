"""Load a `Recipe` from TOML files, layers and overrides, reporting every mistake, and write it.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from medgen.api.messages import KeyPath, as_toml, did_you_mean, unknown_key
from medgen.api.recipe import Recipe
from medgen.api.settings import unstructure
from medgen.api.structure import structure
from medgen.api.tables import DataSettings
from medgen.api.values import SEVERAL
from medgen.config.overlay import Layers
from medgen.config.recipe_files import WITH, find, not_alone, parse, recipes_dir
from medgen.config.registry import Registry
from medgen.config.resolver import CORE, Resolver
from medgen.errors import Problem, RecipeError


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    layers: Sequence[str | Path] = (),
    registry: Registry | None = None,
) -> Recipe:
    """Load a recipe by file or name. Precedence, rising: extended files, file, layers, overrides.

    overrides: `KEY=VALUE`, such as `training.epochs=3`. layers: further recipes, as after `--with`.
    Raises RecipeError with every mistake, or PluginError if only plugins are at fault.
    """
    main, laid = find(path), Layers()
    if main.resolve().parent == (recipes_dir() / WITH).resolve():
        raise RecipeError(not_alone(main))
    laid.lay_file(main)
    for each in layers:
        laid.lay_file(find(each, [Path(), recipes_dir() / WITH], "--with: "))
    wrong = [problem for each in overrides for problem in laid.lay_override(each)]
    return Resolver(laid, str(main), registry or Registry.load(), wrong).recipe()


def from_toml(
    text: str,
    registry: Registry | None = None,
    source: str = "recipe",
    overrides: Sequence[str] = (),
) -> Recipe:
    """Load a recipe from a text. source: its name in messages. overrides: `KEY=VALUE`."""
    laid = Layers()
    laid.lay(parse(text, source), source)
    wrong = [problem for each in overrides for problem in laid.lay_override(each)]
    return Resolver(laid, source, registry or Registry.load(), wrong).recipe()


def data_settings(overrides: Sequence[str]) -> DataSettings:
    """Make a table [data] from `KEY=VALUE`, for a folder without a recipe. Raises RecipeError."""
    laid = Layers()
    wrong = [problem for each in overrides for problem in laid.lay_override(each)]
    wrong += [unknown_key(KeyPath((name,)), ["data"]) for name in laid.tables.keys() - {"data"}]
    settings, problems = structure(laid.tables.get("data", {}), DataSettings, "data")
    if wrong or settings is None:
        raise RecipeError(*wrong, *problems)
    return settings


def to_toml(recipe: Recipe, only: str | None = None) -> str:
    """Write TOML that loads to an equal recipe. only: a single table, such as `training`."""
    table = _plain(recipe)
    if only is not None and only not in table:
        expected = f"one of {', '.join(table)}"
        raise RecipeError(
            Problem(
                "--only", f"got {as_toml(only)}, expected {expected}", did_you_mean(only, table)
            )
        )
    return tomli_w.dumps(table if only is None else {only: table[only]})


def public_toml(recipe: Recipe) -> str:
    """Write TOML for files that leave the machine: paths emptied, private tables such as [slurm]
    left out; it loads.
    """
    table = _plain(recipe, paths=False)
    for name, settings in recipe.tables.items():
        if not settings.public:
            del table[name]
    return tomli_w.dumps(table)


def shipped() -> list[tuple[str, str]]:
    """List the names of medgen's recipes, each with its first comment."""
    files = sorted(recipes_dir().glob("*.toml"))
    return [
        (path.stem, path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# "))
        for path in files
    ]


def _plain(recipe: Recipe, paths: bool = True) -> dict[str, Any]:
    single = {
        kind: {name: unstructure(getattr(recipe, kind), paths)}
        for kind, name in recipe.names.items()
    }
    tables = {name: unstructure(each, paths) for name, each in recipe.tables.items()}
    return (
        single
        | {name: unstructure(getattr(recipe, name), paths) for name in (*SEVERAL, *CORE)}
        | tables
    )
