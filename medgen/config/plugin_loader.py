"""Import entry points, each so that none takes the others down.

pluggy's own loader is not used: it stops at the first plugin that fails to import, and drops the
second of two distributions whose entry points share a name. `installed` finds the entry points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import PurePath
from typing import Any

import attrs

from medgen.api.measures import FeaturesSettings, SegmenterSettings
from medgen.api.recipe import (
    CallbackSettings,
    LossSettings,
    ModeSettings,
    NetworkSettings,
    PhasedSettings,
    SpaceSettings,
    StrategySettings,
    TableSettings,
    WeightsSettings,
)
from medgen.api.settings import field, fields, settings
from medgen.api.value_checks import ge
from medgen.config import installed, plugin_hooks
from medgen.config.containment import contained
from medgen.config.entries import Entry, Given, Plugin
from medgen.config.installed import Source
from medgen.config.plugin_hooks import BrokenPluginError
from medgen.errors import printable

_HOOKS = {
    "mode": "medgen_modes",
    "strategy": "medgen_strategies",
    "space": "medgen_spaces",
    "network": "medgen_networks",
    "losses": "medgen_losses",
    "callbacks": "medgen_callbacks",
    "features": "medgen_features",
    "segmenters": "medgen_segmenters",
    "weights": "medgen_weights",
    "tables": "medgen_tables",
}
_BASES: dict[str, tuple[type, ...]] = {
    "mode": (ModeSettings,),
    "strategy": (StrategySettings,),
    "space": (SpaceSettings,),
    "network": (NetworkSettings,),
    "losses": (LossSettings,),
    "callbacks": (CallbackSettings, PhasedSettings),
    "features": (FeaturesSettings,),
    "segmenters": (SegmenterSettings,),
    "weights": (WeightsSettings,),
    "tables": (TableSettings,),
}
_LONGEST = 500
"""Maximum characters of a reason; some errors have pages."""


class Loader:
    """Imports entry points. Of distributions with one name, the first that works provides each."""

    def __init__(self) -> None:
        self.rows: list[Plugin] = []
        self.entries: list[Entry] = []
        self.given: dict[tuple[str, str], Given] = {}
        """By name and module, as two entry points may name the same module."""
        self._loaded: set[tuple[str, str]] = set()

    def add(self, found: installed.Found, check: Callable[[], None]) -> None:
        """Import a distribution's entry points; `check` raises if the user interrupts."""
        name, version, path = found.source
        self.rows += [
            Plugin(PurePath(path).name, name, version, error=reason) for reason in found.damage
        ]
        new = [point for point in found.points if (name.lower(), point.name) not in self._loaded]
        for point in sorted(new, key=lambda point: point.name):
            row = self._load(point, found.source)
            check()
            self.rows.append(row)
            if row.error is None:
                self._loaded.add((name.lower(), point.name))

    def _load(self, point: EntryPoint, source: Source) -> Plugin:
        row = Plugin(printable(point.name), source.name, source.version)
        file = source.path
        try:
            with contained():
                module = _import(point)
                file = vars(module).get("__file__") or file
                gives = plugin_hooks.answers(module)
                found = [Entry(*each, source.name, source.version) for each in _classes(gives)]
                commands = plugin_hooks.commands(gives.get("medgen_commands", ()))
        except (
            BaseException
        ) as error:  # SystemExit and KeyboardInterrupt too: one plugin must not take all down
            return row._replace(error=_reason(error), file=printable(str(file)))
        self.entries += found
        for command in commands:
            self.given.setdefault(
                (str(command.name), point.value), Given(command, source.name, source.version)
            )
        provides = [(entry.kind, entry.name) for entry in found]
        provides += [("command", str(command.name)) for command in commands]
        return row._replace(provides=tuple(provides))


def _import(point: EntryPoint) -> Any:
    if not point.pattern.match(point.value):
        raise BrokenPluginError(f"{point.value!r} names no module")
    return point.load()


def _reason(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:  # of a class of the plugin's own
        text = ""
    reason = text if isinstance(error, BrokenPluginError) else f"{type(error).__name__}: {text}"
    return printable(reason.rstrip(": ")[:_LONGEST])


def _classes(gives: Mapping[str, Any]) -> Iterator[tuple[str, str, type]]:
    for kind, hook in _HOOKS.items():
        for name, cls in plugin_hooks.classes(hook, gives[hook]) if hook in gives else ():
            _require_settings(kind, name, cls)
            yield kind, name, _weighted(cls) if kind == "losses" else cls


@functools.cache
def _weighted(cls: type) -> type:
    """Add the field `weight`, which every table `[losses.x]` has, to a loss's settings."""
    weight = field(1.0, help="factor of this loss in the sum", check=ge(0))
    names = ("__module__", "__qualname__", "__doc__")
    body = {name: getattr(cls, name) for name in names}
    return settings(
        type(cls.__name__, (cls,), {**body, "__annotations__": {"weight": float}, "weight": weight})
    )


def _require_settings(kind: str, name: str, cls: type) -> None:
    if not attrs.has(cls):
        raise BrokenPluginError(f"{kind}.{name} is no settings class: it needs @settings")
    if not issubclass(cls, _BASES[kind]):
        bases = " or ".join(base.__name__ for base in _BASES[kind])
        raise BrokenPluginError(f"{kind}.{name} does not derive from medgen.{bases}")
    names = [
        each.name for each in fields(cls)
    ]  # raises NameError for an annotation that cannot be read
    if kind == "losses" and "weight" in names:
        raise BrokenPluginError(
            f"{kind}.{name} has a field weight, which the core gives to every loss"
        )
