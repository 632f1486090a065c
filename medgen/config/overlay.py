"""Merge TOML files and `KEY=VALUE` in order, and record the origin of each key."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import tomli

from medgen.api.messages import Key, as_toml, did_you_mean
from medgen.api.values import SEVERAL, SINGLE
from medgen.errors import Problem, RecipeError, reason
from medgen.system.names import is_utf8, portable

COMMAND_LINE = "command line"
WITH = "with"
"""Folder of the layers that apply to any recipe, below that of the recipes."""
NOT_UTF8 = "Rename it, or name it by a variable: export SCANS=..., then data.root='$SCANS'."
"""Advice for a folder on the command line whose name is not UTF-8."""
_DEEPEST = 50
"""Maximum levels of nesting; medgen's recipes need five."""


class Place(NamedTuple):
    """Where a mistake of a recipe is. source: its file, or the command line. key: the key path."""

    source: str
    key: str

    def __str__(self) -> str:
        return f"{self.source}: {self.key}"


class Layers:
    """Merged tables, and the origin of each key.

    removed: kinds and names removed by `kind.name = false`.
    """

    def __init__(self) -> None:
        self.tables: dict[str, Any] = {}
        self.removed: list[tuple[str, str]] = []
        self._origins: dict[tuple[Key, ...], str] = {}
        self._extended: set[Path] = set()

    def origin(self, path: tuple[Key, ...]) -> str | None:
        """Return the last file that set a key, or the nearest table around it."""
        lengths = range(len(path), 0, -1)
        return next(
            (self._origins[path[:length]] for length in lengths if path[:length] in self._origins),
            None,
        )

    def lay_file(self, file: Path, below: tuple[Path, ...] = ()) -> None:
        """Merge a file after the files that it extends; a file extended several times is merged
        once.
        """
        identity = file.resolve()
        if identity in below:
            raise RecipeError(
                Problem(file, "extends: this file extends itself", "Remove one of the links")
            )
        table = parse(read(file), str(file))
        for name in _extends(table.pop("extends", []), file):
            parent = find(name, [file.parent], f"{file}: extends: ")
            if parent.resolve() not in self._extended:
                self.lay_file(parent, (*below, identity))
                self._extended.add(parent.resolve())
        self.lay(table, str(file))

    def lay_override(self, text: str) -> Iterator[Problem]:
        """Merge one `KEY=VALUE`; yields its mistakes."""
        text = portable(text)
        key, equals, value = text.partition("=")
        path = [part.strip() for part in key.split(".")]
        if is_utf8(key) and not is_utf8(value):
            yield Problem(
                COMMAND_LINE, f"got {as_toml(text)}, which is not UTF-8, as recipes are", NOT_UTF8
            )
            return
        if not equals or not all(path) or len(path) > _DEEPEST or not text.isprintable():
            hint = (
                f"A layer goes after --with: --with {text}"
                if text.isprintable() and layer(text)
                else ""
            )
            yield Problem(
                COMMAND_LINE,
                f"got {as_toml(text)}, expected KEY=VALUE such as training.epochs=3",
                hint,
            )
            return
        table = _value(value)
        for part in reversed(path):
            table = {part: table}
        self.lay(table, COMMAND_LINE)

    def lay(self, table: Mapping[str, Any], origin: str) -> None:
        """Merge a table: single kinds replace, all else merges, `kind.name = false` removes."""
        for key, value in table.items():
            if key in SINGLE:
                self.tables[key] = self._replace(
                    key, {value: {}} if isinstance(value, str) else value, origin
                )
            elif key in SEVERAL and isinstance(value, dict):
                merged = self._merge(self.tables.get(key, {}), value, (key,), origin)
                self.tables[key] = self._without_removed(key, merged)
            else:
                self._clear_other_length(key, value)
                self.tables[key] = self._merge(self.tables.get(key), value, (key,), origin)

    def _replace(self, kind: str, value: Any, origin: str) -> Any:
        here = self.tables.get(kind, {})
        if not isinstance(value, dict) or not isinstance(here, dict):
            return self._merge(None, value, (kind,), origin)
        named = {name for name in value if value[name] is not False}
        kept = {name: table for name, table in here.items() if name in named or not named}
        return self._without_removed(kind, self._merge(kept, value, (kind,), origin))

    def _without_removed(self, kind: str, table: dict[str, Any]) -> dict[str, Any]:
        self.removed += [(kind, name) for name, value in table.items() if value is False]
        return {name: value for name, value in table.items() if value is not False}

    def _clear_other_length(self, key: str, value: Any) -> None:
        """Let a later `steps` replace `epochs`, and vice versa."""
        if (
            key != "training"
            or not isinstance(value, dict)
            or not isinstance(self.tables.get(key), dict)
        ):
            return
        for given, other in (("steps", "epochs"), ("epochs", "steps")):
            if value.get(given) and other not in value:
                self.tables[key].pop(other, None)

    def _merge(self, under: Any, over: Any, path: tuple[Key, ...], origin: str) -> Any:
        self._origins[path] = origin
        if not isinstance(over, dict):
            return over
        merged = dict(under) if isinstance(under, dict) else {}
        for key, value in over.items():
            merged[key] = self._merge(merged.get(key), value, (*path, key), origin)
        return merged


@contextmanager
def given_as(options: Mapping[str, str]) -> Iterator[None]:
    """Replace keys by the options that set them in errors of the command line: `--steps: got 5`."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError(*(_renamed(problem, options) for problem in error.problems)) from None


def _renamed(problem: Problem, options: Mapping[str, str]) -> Problem:
    place = problem.where
    if not isinstance(place, Place) or place.source != COMMAND_LINE or place.key not in options:
        return problem
    return problem._replace(where=options[place.key])


def _value(text: str) -> Any:
    """Parse the right side of an override as TOML; if it is no TOML, return the text."""
    try:
        table = tomli.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text


def _extends(given: Any, file: Path) -> list[str]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecipeError(
            Problem(file, f"extends: got {as_toml(given)}, expected a file or a list of files")
        )
    return names


def find(given: str | Path, folders: Sequence[Path] = (Path(),), where: str = "") -> Path:
    """Find a recipe's file, with or without `.toml`, below one of the folders or among medgen's
    recipes.

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
            Problem(source, "nested too deeply for a recipe", f"Use at most {_DEEPEST} levels")
        ) from None
    except ValueError:  # Python reads no decimal integer beyond 4,300 digits
        raise RecipeError(Problem(source, "a number has too many digits", "Shorten it")) from None
    if _depth_exceeds(table, _DEEPEST):
        raise RecipeError(
            Problem(source, "nested too deeply for a recipe", f"Use at most {_DEEPEST} levels")
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
