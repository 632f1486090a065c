"""Merge TOML files and `KEY=VALUE` in order, and record the origin of each key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import tomli

from medgen.api.messages import Key, as_toml
from medgen.api.values import SEVERAL, SINGLE
from medgen.config.recipe_files import DEEPEST, find, layer, parse, read
from medgen.errors import Problem, RecipeError
from medgen.system.names import is_utf8, portable

COMMAND_LINE = "command line"
NOT_UTF8 = "Rename it, or name it by a variable: export SCANS=..., then data.root='$SCANS'."
"""Advice for a folder on the command line whose name is not UTF-8."""


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
        """Merge a file after the files that it extends, each of them once."""
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
        if not equals or not all(path) or len(path) > DEEPEST or not text.isprintable():
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
