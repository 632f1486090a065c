"""Load a `Recipe` from TOML files, layers and overrides, and write it. Every mistake is reported at once.

Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from medgen.api.recipe import Recipe
from medgen.api.settings import (
    Key,
    as_toml,
    did_you_mean,
    key_path,
    structure,
    unknown_key,
    unstructure,
)
from medgen.api.tables import DataSettings, DistributedSettings, RunSettings, TrainingSettings
from medgen.api.values import KINDS, SEVERAL, SINGLE
from medgen.config import advice
from medgen.config.checks import Check, checks
from medgen.config.overlay import WITH, Layers, Place, find, not_alone, parse, recipes_dir
from medgen.config.registry import Registry
from medgen.errors import PluginError, Problem, RecipeError

CORE: dict[str, type] = {
    "data": DataSettings,
    "training": TrainingSettings,
    "run": RunSettings,
    "distributed": DistributedSettings,
}
"""The tables of the core."""


def load(
    path: str | Path, overrides: Sequence[str] = (), layers: Sequence[str | Path] = (), registry: Registry | None = None
) -> Recipe:
    """Load a recipe from a file or by name. Precedence, rising: extended files, the file, layers, overrides.

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
    return _Resolver(laid, str(main), registry or Registry.load(), wrong).recipe()


def from_toml(
    text: str, registry: Registry | None = None, source: str = "recipe", overrides: Sequence[str] = ()
) -> Recipe:
    """Load a recipe from a text, such as a checkpoint's. source: its name in messages. overrides: `KEY=VALUE`."""
    laid = Layers()
    laid.lay(parse(text, source), source)
    wrong = [problem for each in overrides for problem in laid.lay_override(each)]
    return _Resolver(laid, source, registry or Registry.load(), wrong).recipe()


def data_settings(overrides: Sequence[str]) -> DataSettings:
    """The table [data] that `KEY=VALUE` alone make, for a folder without a recipe. Raises RecipeError."""
    laid = Layers()
    wrong = [problem for each in overrides for problem in laid.lay_override(each)]
    wrong += [Problem(name, unknown_key(name, ["data"])) for name in laid.tables.keys() - {"data"}]
    settings, problems = structure(laid.tables.get("data", {}), DataSettings, "data")
    if wrong or settings is None:
        raise RecipeError(*wrong, *(Problem(each.key, each.message) for each in problems))
    return settings


def to_toml(recipe: Recipe, only: str | None = None) -> str:
    """Write TOML that loads to an equal recipe. only: a single table, such as `training`."""
    table = _plain(recipe)
    if only is not None and only not in table:
        raise RecipeError(
            Problem("--only", f"got {as_toml(only)}, expected one of {', '.join(table)}.{did_you_mean(only, table)}")
        )
    return tomli_w.dumps(table if only is None else {only: table[only]})


def public_toml(recipe: Recipe) -> str:
    """Write TOML for files that leave the machine: paths emptied, private tables such as [slurm] left out; it loads."""
    table = _plain(recipe, paths=False)
    for name, settings in recipe.tables.items():
        if not settings.public:
            del table[name]
    return tomli_w.dumps(table)


def shipped() -> list[tuple[str, str]]:
    """List the names of medgen's recipes, each with its first comment."""
    files = sorted(recipes_dir().glob("*.toml"))
    return [(path.stem, path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")) for path in files]


class _Resolver:
    """Builds settings objects from tables, and collects mistakes of the recipe and faults of plugins."""

    def __init__(self, layers: Layers, source: str, registry: Registry, problems: Iterable[Problem] = ()):
        self.layers, self.source, self.registry = layers, source, registry
        self.problems, self.broken = list(problems), list[Problem]()
        self._keys: list[str] = []

    def recipe(self) -> Recipe:
        """Build the recipe. Raises RecipeError, or PluginError if only plugins are at fault."""
        tables = self.layers.tables
        known = (*CORE, *KINDS, *self.registry.names("tables"))
        for name in (name for name in tables if name not in known):
            self._report((name,), self._or_broken(unknown_key(name, known)))
        for kind, name in self.layers.removed:
            self._require_known(kind, name)
        core: dict[str, Any] = {name: self._structure(cls, tables.get(name, {}), name) for name, cls in CORE.items()}
        single: dict[str, tuple[str, Any]] = {kind: self._single(kind) for kind in SINGLE}
        names = {kind: name for kind, (name, _) in single.items()}
        parts: dict[str, Any] = {kind: made for kind, (_, made) in single.items()}
        parts |= {kind: self._several(kind) for kind in SEVERAL}
        own = {name: self._plugin("tables", name, tables.get(name, {})) for name in self.registry.names("tables")}
        recipe = Recipe(**core, **parts, tables={name: each for name, each in own.items() if each}, names=names)
        self._check(recipe)
        if self.problems:
            raise RecipeError(*self.problems, *self.broken)
        if self.broken:
            raise PluginError(*self.broken)
        return recipe

    def _single(self, kind: str) -> tuple[str, Any]:
        table = self.layers.tables.get(kind, {})
        tables = ", ".join(f"[{kind}.{name}]" for name in self.registry.names(kind))
        if not isinstance(table, dict):
            self._report((kind,), f"got {as_toml(table)}, expected one of the tables {tables}.")
        elif len(table) > 1:
            given = " and ".join(f"[{kind}.{name}]" for name in table)
            self._report((kind,), f"got {given}, expected only one. Remove the others.")
        elif not table:
            self._report((kind,), f"missing, expected one of the tables {tables}. Add one.")
        else:
            [(name, values)] = table.items()
            return name, self._plugin(kind, name, values)
        return "", None

    def _several(self, kind: str) -> dict[str, Any]:
        table = self.layers.tables.get(kind, {})
        if not isinstance(table, dict):
            self._report((kind,), advice.not_tables(kind, table, self.registry.names(kind)))
        elif not table and kind == "losses":
            tables = ", ".join(f"[{kind}.{name}]" for name in self.registry.names(kind))
            self._report((kind,), f"missing, expected at least one of the tables {tables}. Add one.")
        else:
            made = {name: self._plugin(kind, name, values) for name, values in table.items()}
            return {name: each for name, each in made.items() if each is not None}
        return {}

    def _plugin(self, kind: str, name: str, table: Any) -> Any:
        try:
            entry = self.registry.find(kind, name)
        except PluginError as error:
            origin = self._origin((kind, name))
            self.broken += [each._replace(where=Place(origin, str(each.where))) for each in error.problems]
            return None
        if entry and not isinstance(table, dict):
            path = (name,) if kind == "tables" else (kind, name)
            self._report(path, advice.not_a_table(kind, name, table))
            return None
        if entry:
            return self._structure(entry.settings_class, table, name if kind == "tables" else f"{kind}.{name}")
        self._require_known(kind, name)
        return None

    def _require_known(self, kind: str, name: str) -> None:
        names = self.registry.names(kind)
        if name not in (*names, *(plugin.name for plugin in self.registry.plugins if plugin.error)):
            message = f"no such plugin, expected one of {', '.join(names)}.{did_you_mean(name, names)}"
            self._report((kind, name), self._or_broken(message))

    def _or_broken(self, message: str) -> str:
        """Add that a broken plugin may be what is meant, unless a likely name is at hand."""
        return message if message.endswith("?") else message + self.registry.suspects()

    def _structure(self, cls: type, table: Any, where: str) -> Any:
        """Build a settings object; wrong keys get their defaults, so that checks can continue."""
        made, problems = structure(table, cls, where)
        for problem in problems:
            self._report(problem.path, problem.message)
        if made is not None or not isinstance(table, dict):
            return made
        depth = where.count(".") + 1
        wrong = {problem.path[depth] for problem in problems if len(problem.path) > depth}
        return structure({key: value for key, value in table.items() if key not in wrong}, cls)[0]

    def _check(self, recipe: Recipe) -> None:
        parts = {name: getattr(recipe, name) for name in CORE}
        parts |= {f"{kind}.{name}": getattr(recipe, kind) for kind, name in recipe.names.items()}
        parts |= {f"{kind}.{name}": each for kind in SEVERAL for name, each in getattr(recipe, kind).items()}
        messages = [message for where, check in checks(recipe) for message in self._ask(where, check, recipe)]
        for message in [*messages, *_not_slices(parts)]:
            if not any(_mentions(message, key) for key in self._keys):  # else it may only follow from that mistake
                key, _, said = message.partition(": ")
                self.problems.append(Problem(Place(self._origin(_path(key)), key), said))

    def _ask(self, where: str, check: Check, recipe: Recipe) -> list[str]:
        try:
            return list(check(recipe))
        except Exception as error:
            if self.problems or self.broken:  # it may have met with what could not be made
                return []
            if isinstance(error, PluginError):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(
                Problem(where, f"its check(recipe) failed: {reason}", "Report it to its authors")
            ) from error

    def _report(self, path: tuple[Key, ...], message: str) -> None:
        self._keys.append(key_path(path))
        self.problems.append(Problem(Place(self._origin(path), key_path(path)), message))

    def _origin(self, path: tuple[Key, ...]) -> str:
        return self.layers.origin(path) or self.source


def _not_slices(parts: Mapping[str, Any]) -> Iterator[str]:
    """Find plugins set to volumes; the data are slices."""
    for where, part in parts.items():
        axes = getattr(part, "spatial_dims", 2)
        if axes != 2:
            yield f"{where}.spatial_dims: got {axes}, expected 2, as the data are slices. Leave it out."


def _path(message: str) -> tuple[Key, ...]:
    """Parse the key path at the start of a message, up to a position in a list."""
    return tuple(re.split(r":|\[", message, maxsplit=1)[0].split("."))


def _mentions(message: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", message) is not None


def _plain(recipe: Recipe, paths: bool = True) -> dict[str, Any]:
    single = {kind: {name: unstructure(getattr(recipe, kind), paths)} for kind, name in recipe.names.items()}
    tables = {name: unstructure(each, paths) for name, each in recipe.tables.items()}
    return single | {name: unstructure(getattr(recipe, name), paths) for name in (*SEVERAL, *CORE)} | tables
