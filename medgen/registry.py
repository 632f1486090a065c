"""Entry points to settings classes by kind and name. A plugin that is broken is a row of the list, not a crash.

pluggy's own loader is not used: it stops at the first plugin that fails to import, and drops the second of two
distributions whose entry points share a name.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import attrs
import pluggy

from medgen.console import printable
from medgen.errors import PluginError
from medgen.hookspecs import Registration
from medgen.settings import did_you_mean, field, fields, ge, settings

if TYPE_CHECKING:
    import click

API = 1
"""What a plugin module declares as `medgen_api`."""
_HOOKS = {
    "mode": "medgen_modes",
    "strategy": "medgen_strategies",
    "space": "medgen_spaces",
    "network": "medgen_networks",
    "losses": "medgen_losses",
    "callbacks": "medgen_callbacks",
}


class Entry(NamedTuple):
    """A settings class that a plugin gives."""

    kind: str
    name: str
    settings_class: type
    distribution: str
    version: str


class Plugin(NamedTuple):
    """An entry point, as `medgen plugins list` shows it. provides: kinds and names. error: why it is broken."""

    name: str
    distribution: str
    version: str
    provides: tuple[tuple[str, str], ...] = ()
    error: str | None = None


class BrokenPluginError(Exception):
    """Why a plugin cannot be used, in one line."""


class Registry:
    """What is installed. `plugins` has a row per entry point, broken ones included; `entries` is what they give."""

    def __init__(self, plugins: Sequence[Plugin], entries: Sequence[Entry], commands: Sequence[click.Command] = ()):
        self.plugins, self.entries, self._commands = tuple(plugins), tuple(entries), tuple(commands)

    @classmethod
    def load(cls) -> Registry:
        """Import every entry point of the group `medgen`."""
        loaded = [_load(point) for point in sorted(entry_points(group="medgen"), key=_order)]
        entries = [entry for _, found, _ in loaded for entry in found]
        commands = [command for _, _, found in loaded for command in found]
        return cls([row for row, _, _ in loaded], _distinct(entries), commands)

    def names(self, kind: str) -> tuple[str, ...]:
        """Every name of a kind."""
        return tuple(dict.fromkeys(entry.name for entry in self.entries if entry.kind == kind))

    def find(self, kind: str, name: str) -> Entry | None:
        """The entry, or None if nothing has that name. Raises PluginError if it is ambiguous or its plugin broken."""
        found = [entry for entry in self.entries if (entry.kind, entry.name) == (kind, name)]
        if len(found) > 1:
            raise PluginError(_ambiguous(found))
        broken = [plugin for plugin in self.plugins if plugin.name == name and plugin.error]
        if broken and not found:
            raise PluginError(f"{kind}.{name}: its plugin is broken: {describe(broken[0])}. Repair or remove it.")
        return found[0] if found else None

    def get(self, kind: str, name: str) -> Entry:
        """The entry. Raises PluginError if there is none, if it is ambiguous, or if its plugin is broken."""
        entry = self.find(kind, name)
        if entry is None:
            raise PluginError(f"{kind}.{name}: no such plugin, there are {', '.join(self.names(kind)) or 'none'}.")
        return entry

    def commands(self) -> tuple[click.Command, ...]:
        """The commands that plugins add."""
        return self._commands

    def problems(self) -> list[str]:
        """What is wrong with what is installed: broken plugins, and names that two distributions give."""
        broken = [f"{plugin.name}: {describe(plugin)}" for plugin in self.plugins if plugin.error]
        keys = dict.fromkeys((entry.kind, entry.name) for entry in self.entries)
        same = [[entry for entry in self.entries if (entry.kind, entry.name) == key] for key in keys]
        return broken + [_ambiguous(entries) for entries in same if len(entries) > 1]


def describe(plugin: Plugin) -> str:
    """A broken plugin's fault and where it comes from: `ModuleNotFoundError: nosuch (bad-import 1.0)`."""
    return f"{plugin.error} ({plugin.distribution} {plugin.version})"


def _ambiguous(entries: Sequence[Entry]) -> str:
    by = " and ".join(f"{entry.distribution} {entry.version}" for entry in entries)
    return f"{entries[0].kind}.{entries[0].name}: given by {by}. Uninstall one of them."


def _order(point: EntryPoint) -> tuple[str, str]:
    return (_origin(point)[0], point.name)


def _origin(point: EntryPoint) -> tuple[str, str]:
    return (printable(point.dist.name), printable(point.dist.version)) if point.dist else ("unknown", "?")


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Two entry points may name the same module."""
    return list({(entry.kind, entry.name, entry.settings_class): entry for entry in entries}.values())


def _load(point: EntryPoint) -> tuple[Plugin, list[Entry], list[click.Command]]:
    name, distribution, version = printable(point.name), *_origin(point)
    try:
        # what a plugin prints as it is imported must not end up between our lines on stdout
        with contextlib.redirect_stdout(sys.stderr):
            hooks = _hooks(point.load())
            found = [Entry(*each, distribution, version) for each in _classes(hooks)]
            commands = [command for answer in hooks.medgen_commands() for command in answer]
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: one plugin must not take all down
        return Plugin(name, distribution, version, error=_reason(error)), [], []
    provides = [(entry.kind, entry.name) for entry in found]
    provides += [("command", str(command.name)) for command in commands]
    return Plugin(name, distribution, version, tuple(provides)), found, commands


def _reason(error: BaseException) -> str:
    reason = str(error) if isinstance(error, BrokenPluginError) else f"{type(error).__name__}: {error}"
    return printable(reason.rstrip(": "))


def _hooks(module: ModuleType) -> pluggy.HookRelay:
    """The hooks of one plugin, on a manager of its own, so that each answer has a known giver."""
    _require_api(module)
    manager = pluggy.PluginManager("medgen")
    manager.add_hookspecs(Registration)
    manager.register(module)  # checks the signatures
    callers = manager.get_hookcallers(module) or []
    known = [name for name in vars(Registration) if name.startswith("medgen_")]
    for caller in callers:
        if not caller.has_spec():
            raise BrokenPluginError(f"{caller.name} is no hook of a plugin module.{did_you_mean(caller.name, known)}")
    if not callers:
        raise BrokenPluginError(f"implements none of {', '.join(known)}. Is @hookimpl missing?")
    return manager.hook


def _require_api(module: ModuleType) -> None:
    declared = getattr(module, "medgen_api", None)
    if declared is None:
        raise BrokenPluginError(f"declares no medgen_api (have {API})")
    if declared != API:
        raise BrokenPluginError(f"requires medgen plugin API {declared} (have {API})")


def _classes(hooks: pluggy.HookRelay) -> Iterator[tuple[str, str, type]]:
    for kind, hook in _HOOKS.items():
        for answer in getattr(hooks, hook)():
            for name, cls in answer.items():
                _require_settings(kind, name, cls)
                yield kind, name, _weighted(cls) if kind == "losses" else cls


@functools.cache
def _weighted(cls: type) -> type:
    """A loss's settings with the field `weight`, which every table `[losses.x]` has."""
    weight = field(1.0, help="what the core multiplies this loss by", check=ge(0))
    names = ("__module__", "__qualname__", "__doc__")
    body = {name: getattr(cls, name) for name in names}
    return settings(type(cls.__name__, (cls,), {**body, "__annotations__": {"weight": float}, "weight": weight}))


def _require_settings(kind: str, name: str, cls: type) -> None:
    if not re.fullmatch("[A-Za-z0-9_-]+", name):
        raise BrokenPluginError(f"{name!r} is no name for a plugin: letters, digits, _ and - only")
    if not attrs.has(cls) or not callable(getattr(cls, "build", None)):
        raise BrokenPluginError(f"{kind}.{name} is no settings class: it needs @settings and a method build")
    names = [each.name for each in fields(cls)]  # raises NameError for an annotation that cannot be read
    if kind == "losses" and "weight" in names:
        raise BrokenPluginError(f"{kind}.{name} has a field weight, which the core gives to every loss")
