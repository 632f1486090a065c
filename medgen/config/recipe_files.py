"""Find, read and parse the files of recipes: the user's, and those that come with medgen."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli

from medgen.api.messages import did_you_mean
from medgen.errors import Problem, RecipeError, reason

WITH = "with"
"""Folder of the layers that apply to any recipe, below that of the recipes."""
DEEPEST = 50
"""Maximum levels of nesting; medgen's recipes need five."""


def find(given: str | Path, folders: Sequence[Path] = (Path(),), where: str = "") -> Path:
    """Find a recipe's file, with or without `.toml`, in one of the folders or in medgen's.

    where: start of the error message. Raises RecipeError.
    """
    path = Path(given)
    below = Path(*path.parts[1:]) if path.parts[:1] == ("recipes",) else path
    places = [*(folder / path for folder in folders), recipes_dir() / below]
    for place in places:
        for candidate in (place, Path(f"{place}.toml")):
            if os.path.exists(candidate) and not os.path.isdir(candidate):
                return candidate
    if os.path.isdir(places[0]):
        raise RecipeError(Problem(f"{where}{path}", "is a folder", "Name a recipe in it"))
    if layer(path):
        raise RecipeError(not_alone(path, where))
    hint = (
        did_you_mean(path.name, _names_beside(places))
        or "`medgen recipe list` shows those that come along"
    )
    raise RecipeError(Problem(f"{where}{path}", "no such recipe", hint))


def layer(given: str | Path) -> str | None:
    """Return the name of medgen's layer, such as `fast_debug`, that a name or path means, or None."""
    path = Path(given)
    file = recipes_dir() / WITH / f"{path.stem}.toml"
    if (
        path.parent.name not in ("", WITH)
        or path.suffix not in ("", ".toml")
        or not os.path.isfile(file)
    ):
        return None
    return path.stem


def not_alone(path: Path, option: str = "") -> Problem:
    """Explain that a layer is no recipe. option: what named it."""
    fix = f"Use it as `medgen train RECIPE --with {layer(path)}`"
    return Problem(f"{option}{path}", "is a layer to lay over a recipe", fix)


def recipes_dir() -> Path:
    """Return the folder of medgen's recipes, in a checkout or as installed by the wheel."""
    beside = Path(__file__).parents[2] / "recipes"
    return (
        beside
        if (beside / "base" / "common.toml").is_file()
        else Path(sys.prefix, "share", "medgen", "recipes")
    )


def read(file: Path) -> str:
    """Read a file's text. Raises RecipeError if it cannot be read; never waits for a pipe."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise RecipeError(Problem(file, "is no regular file", "Give a TOML file"))
        # medgen writes a run's own recipe with the names of folders as they are
        return file.read_bytes().decode(
            "utf-8-sig", "surrogateescape" if file.name == "recipe.toml" else "strict"
        )
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            Problem(
                f"{file}:{line}",
                f"byte 0x{error.object[error.start]:02x} is not UTF-8",
                "Save it as UTF-8",
            )
        ) from None
    except OSError as error:
        raise RecipeError(
            Problem(file, reason(error), "Give a TOML file that can be read")
        ) from None


def parse(text: str, source: str) -> dict[str, Any]:
    """Parse a TOML text. Raises RecipeError with line and column."""
    try:
        table = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise RecipeError(
            Problem(f"{source}:{error.lineno}:{error.colno}", error.msg, "Correct the TOML")
        ) from None
    except RecursionError:
        raise RecipeError(
            Problem(source, "nested too deeply for a recipe", f"Use at most {DEEPEST} levels")
        ) from None
    except ValueError:  # Python reads no decimal integer beyond 4,300 digits
        raise RecipeError(Problem(source, "a number has too many digits", "Shorten it")) from None
    if _depth_exceeds(table, DEEPEST):
        raise RecipeError(
            Problem(source, "nested too deeply for a recipe", f"Use at most {DEEPEST} levels")
        )
    return table


def _depth_exceeds(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        inner = [
            each.values() if isinstance(each, dict) else each
            for each in layer
            if isinstance(each, (dict, list))
        ]
        layer = [member for each in inner for member in each]
    return bool(layer)


def _names_beside(places: Sequence[Path]) -> list[str]:
    files = [
        file
        for place in places
        if place.parent.is_dir()
        for file in sorted(place.parent.glob("*.toml"))
    ]
    return [name for file in files for name in (file.name, file.stem)]
