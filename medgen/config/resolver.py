"""Build the settings objects of a recipe from its tables. Every mistake is reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from medgen.api.messages import KeyPath, as_toml, did_you_mean, unknown_key
from medgen.api.recipe import Recipe
from medgen.api.settings import fields
from medgen.api.structure import structure
from medgen.api.tables import DataSettings, DistributedSettings, RunSettings, TrainingSettings
from medgen.api.values import KINDS, SEVERAL, SINGLE
from medgen.config import advice
from medgen.config.checks import Check, checks
from medgen.config.overlay import Layers, Place
from medgen.config.registry import Registry
from medgen.errors import PluginError, Problem, RecipeError

CORE: dict[str, type] = {
    "data": DataSettings,
    "training": TrainingSettings,
    "run": RunSettings,
    "distributed": DistributedSettings,
}
"""The tables of the core."""
GONE = "spatial_dims"
"""A key of spaces and networks in older recipes and checkpoints: the number of axes follows from
the data.
"""


class Resolver:
    """Builds settings objects, and collects mistakes of the recipe and faults of plugins."""

    def __init__(
        self, layers: Layers, source: str, registry: Registry, problems: Iterable[Problem] = ()
    ):
        self.layers, self.source, self.registry = layers, source, registry
        self.problems, self.broken = list(problems), list[Problem]()
        self._keys: list[str] = []

    def recipe(self) -> Recipe:
        """Build the recipe. Raises RecipeError, or PluginError if only plugins are at fault."""
        tables = self.layers.tables
        known = (*CORE, *KINDS, *self.registry.names("tables"))
        for name in (name for name in tables if name not in known):
            self._report(self._or_broken(unknown_key(KeyPath((name,)), known)))
        for kind, name in self.layers.removed:
            self._require_known(kind, name)
        core: dict[str, Any] = {
            name: self._structure(cls, tables.get(name, {}), name) for name, cls in CORE.items()
        }
        self._axes = core["data"].axes if core["data"] else DataSettings().axes
        single: dict[str, tuple[str, Any]] = {kind: self._single(kind) for kind in SINGLE}
        names = {kind: name for kind, (name, _) in single.items()}
        parts: dict[str, Any] = {kind: made for kind, (_, made) in single.items()}
        parts |= {kind: self._several(kind) for kind in SEVERAL}
        own = {
            name: self._plugin("tables", name, tables.get(name, {}))
            for name in self.registry.names("tables")
        }
        recipe = Recipe(
            **core, **parts, tables={name: each for name, each in own.items() if each}, names=names
        )
        self._check(recipe)
        if self.problems:
            raise RecipeError(*self.problems, *self.broken)
        if self.broken:
            raise PluginError(*self.broken)
        return recipe

    def _single(self, kind: str) -> tuple[str, Any]:
        table = self.layers.tables.get(kind, {})
        tables = ", ".join(f"[{kind}.{name}]" for name in self.registry.names(kind))
        here = KeyPath((kind,))
        if not isinstance(table, dict):
            self._report(
                Problem(here, f"got {as_toml(table)}, expected one of the tables {tables}")
            )
        elif len(table) > 1:
            given = " and ".join(f"[{kind}.{name}]" for name in table)
            self._report(Problem(here, f"got {given}, expected only one", "Remove the others"))
        elif not table:
            self._report(Problem(here, f"missing, expected one of the tables {tables}", "Add one"))
        else:
            [(name, values)] = table.items()
            return name, self._plugin(kind, name, values)
        return "", None

    def _several(self, kind: str) -> dict[str, Any]:
        table = self.layers.tables.get(kind, {})
        if not isinstance(table, dict):
            self._report(advice.not_tables(kind, table, self.registry.names(kind)))
        elif not table and kind == "losses":
            tables = ", ".join(f"[{kind}.{name}]" for name in self.registry.names(kind))
            self._report(
                Problem(
                    KeyPath((kind,)),
                    f"missing, expected at least one of the tables {tables}",
                    "Add one",
                )
            )
        else:
            made = {name: self._plugin(kind, name, values) for name, values in table.items()}
            return {name: each for name, each in made.items() if each is not None}
        return {}

    def _plugin(self, kind: str, name: str, table: Any) -> Any:
        try:
            entry = self.registry.find(kind, name)
        except PluginError as error:
            origin = self._origin(KeyPath((kind, name)))
            self.broken += [
                each._replace(where=Place(origin, str(each.where))) for each in error.problems
            ]
            return None
        if entry and not isinstance(table, dict):
            self._report(advice.not_a_table(kind, name, table))
            return None
        if entry and kind in ("space", "network"):
            table = self._without_gone(entry.settings_class, table, KeyPath((kind, name, GONE)))
        if entry:
            return self._structure(
                entry.settings_class, table, name if kind == "tables" else f"{kind}.{name}"
            )
        self._require_known(kind, name)
        return None

    def _without_gone(self, cls: type, table: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        """Leave out the number of axes, unless the plugin has a key of that name. It must be that
        of the data.
        """
        if GONE not in table or GONE in {each.name for each in fields(cls)}:
            return table
        if table[GONE] != self._axes:
            what = f"got {as_toml(table[GONE])}, but the data have {self._axes} axes, from which it follows"
            self._report(Problem(path, what, "Leave it out"))
        return {key: value for key, value in table.items() if key != GONE}

    def _require_known(self, kind: str, name: str) -> None:
        names = self.registry.names(kind)
        if name not in (*names, *(plugin.name for plugin in self.registry.plugins if plugin.error)):
            what = f"no such plugin, expected one of {', '.join(names)}"
            self._report(
                self._or_broken(Problem(KeyPath((kind, name)), what, did_you_mean(name, names)))
            )

    def _or_broken(self, problem: Problem) -> Problem:
        """Add that a broken plugin may be what is meant, unless a likely name is at hand."""
        return problem if problem.fix else problem._replace(fix=self.registry.suspects())

    def _structure(self, cls: type, table: Any, where: str) -> Any:
        """Build a settings object; wrong keys get their defaults, so that checks can continue."""
        made, problems = structure(table, cls, where)
        for problem in problems:
            self._report(problem)
        if made is not None or not isinstance(table, dict):
            return made
        depth = where.count(".") + 1
        paths = [path_of(problem) for problem in problems]
        wrong = {path[depth] for path in paths if len(path) > depth}
        return structure({key: value for key, value in table.items() if key not in wrong}, cls)[0]

    def _check(self, recipe: Recipe) -> None:
        found = [
            problem
            for where, check in checks(recipe)
            for problem in self._ask(where, check, recipe)
        ]
        for problem in found:
            if not any(
                _mentions(problem, key) for key in self._keys
            ):  # else it may only follow from that mistake
                self.problems.append(self._placed(problem))

    def _ask(self, where: str, check: Check, recipe: Recipe) -> list[Problem]:
        try:
            found = list(check(recipe))
            if any(not isinstance(each, Problem) for each in found):
                what = (
                    "its check(recipe) yielded something else than medgen.Problem(where, what, fix)"
                )
                raise PluginError(Problem(where, what, "Report it to its authors"))
            return found
        except Exception as error:
            if self.problems or self.broken:  # it may have met with what could not be made
                return []
            if isinstance(error, PluginError):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(
                Problem(where, f"its check(recipe) failed: {reason}", "Report it to its authors")
            ) from error

    def _report(self, problem: Problem) -> None:
        self._keys.append(str(problem.where))
        self.problems.append(self._placed(problem))

    def _placed(self, problem: Problem) -> Problem:
        """Name the file that set the key."""
        return problem._replace(where=Place(self._origin(path_of(problem)), str(problem.where)))

    def _origin(self, path: KeyPath) -> str:
        return self.layers.origin(path) or self.source


def path_of(problem: Problem) -> KeyPath:
    """Return the key path of a mistake in a recipe; of one that a `check` names as text, up to a
    position in a list.
    """
    where = problem.where
    return where if isinstance(where, KeyPath) else KeyPath(str(where).partition("[")[0].split("."))


def _mentions(problem: Problem, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", str(problem)) is not None
