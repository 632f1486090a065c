"""Entry points to settings classes by kind and name. A plugin that is broken is a row of the list, not a crash.

pluggy's own loader is not used: it stops at the first plugin that fails to import, and drops the second of two
distributions whose entry points share a name. Which there are is told by `installed`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from medgen import __version__
from medgen.api.recipe import (
    CallbackSettings,
    FeaturesSettings,
    LossSettings,
    ModeSettings,
    NetworkSettings,
    PhasedSettings,
    SegmenterSettings,
    SpaceSettings,
    StrategySettings,
    TableSettings,
)
from medgen.api.settings import field, fields, ge, settings
from medgen.config import installed, registration
from medgen.config.containment import contained
from medgen.config.installed import Source
from medgen.config.registration import BrokenPluginError
from medgen.errors import PluginError
from medgen.system.console import printable
from medgen.system.interruptible import interruptible

if TYPE_CHECKING:
    import click

_HOOKS = {
    "mode": "medgen_modes",
    "strategy": "medgen_strategies",
    "space": "medgen_spaces",
    "network": "medgen_networks",
    "losses": "medgen_losses",
    "callbacks": "medgen_callbacks",
    "features": "medgen_features",
    "segmenters": "medgen_segmenters",
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
    "tables": (TableSettings,),
}
_LONGEST = 500
"""Characters of a reason; some errors have pages."""
SUSPECTS = 5
"""Distributions that are named at most."""


class Entry(NamedTuple):
    """A settings class that a plugin gives."""

    kind: str
    name: str
    settings_class: type
    distribution: str
    version: str


class Given(NamedTuple):
    """A command that a plugin gives."""

    command: click.Command
    distribution: str
    version: str


class Plugin(NamedTuple):
    """An entry point, as `medgen plugins list` shows it.

    provides: kinds and names. error: why it is broken. file: what to look at then, if the error does not say.
    """

    name: str
    distribution: str
    version: str
    provides: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    file: str = ""


class Registry:
    """What is installed. `plugins` has a row per entry point, broken ones included; `entries` is what they give."""

    def __init__(self, plugins: Sequence[Plugin], entries: Sequence[Entry], given: Sequence[Given] = ()):
        self.plugins, self.entries, self.given = tuple(plugins), tuple(entries), tuple(given)

    @classmethod
    def load(cls) -> Registry:
        """Import every entry point of the group `medgen`."""
        loader = _Loader()
        with interruptible("import of plugins") as check:
            for found in installed.found():
                loader.add(found, check)
        rows = sorted(loader.rows, key=lambda row: (row.distribution, row.name))
        return cls(rows, _distinct(loader.entries), list(loader.given.values()))

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
            known = ", ".join(self.names(kind)) or "none"
            raise PluginError(f"{kind}.{name}: no such plugin, there are {known}.{self.suspects()}")
        return entry

    def suspects(self) -> str:
        """A sentence, if there are broken plugins, one of which may give what no other does."""
        broken = dict.fromkeys(f"{each.distribution} {each.version}" for each in self.plugins if each.error)
        first = ", ".join(list(broken)[:SUSPECTS]) + ", ..." * (len(broken) > SUSPECTS)
        return f" A broken plugin may be what gives it, of {first}: see `medgen plugins list`." if broken else ""

    def commands(self) -> tuple[click.Command, ...]:
        """The commands that plugins add."""
        return tuple(given.command for given in self.given)

    def givers(self, command: str, core: bool = False) -> list[str]:
        """The distributions that give a command of that name; core: medgen's core is one of them."""
        own = [f"medgen {__version__}"] if core else []
        return own + [f"{each.distribution} {each.version}" for each in self.given if each.command.name == command]

    def problems(self, core: Collection[str] = ()) -> list[str]:
        """What is wrong with what is installed: broken plugins, and names that several give. core: its commands."""
        broken = [f"{plugin.name}: {describe(plugin)}. Repair or remove it." for plugin in self.plugins if plugin.error]
        keys = dict.fromkeys((entry.kind, entry.name) for entry in self.entries)
        same = [[entry for entry in self.entries if (entry.kind, entry.name) == key] for key in keys]
        commands = {
            str(command.name): self.givers(str(command.name), command.name in core) for command in self.commands()
        }
        return [
            *broken,
            *(_ambiguous(entries) for entries in same if len(entries) > 1),
            *(ambiguous(f"command.{name}", givers) for name, givers in commands.items() if len(givers) > 1),
        ]


def describe(plugin: Plugin) -> str:
    """A broken plugin's fault and where it comes from: `ModuleNotFoundError: nosuch (bad-import 1.0), see FILE`."""
    return f"{plugin.error} ({plugin.distribution} {plugin.version})" + (f", see {plugin.file}" if plugin.file else "")


def ambiguous(what: str, givers: Sequence[str]) -> str:
    """The line about a name that several distributions give."""
    return f"{what}: given by {' and '.join(givers)}. Uninstall one of them."


def _ambiguous(entries: Sequence[Entry]) -> str:
    givers = [f"{entry.distribution} {entry.version}" for entry in entries]
    return ambiguous(f"{entries[0].kind}.{entries[0].name}", givers)


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Two entry points may name the same module."""
    return list({(entry.kind, entry.name, entry.settings_class): entry for entry in entries}.values())


class _Loader:
    """Collects what entry points give. Where two distributions have one name, the first that works gives each."""

    def __init__(self) -> None:
        self.rows: list[Plugin] = []
        self.entries: list[Entry] = []
        self.given: dict[tuple[str, str], Given] = {}
        """By name and module, as two entry points may name the same."""
        self._loaded: set[tuple[str, str]] = set()

    def add(self, found: installed.Found, check: Callable[[], None]) -> None:
        """Import what a distribution declares; `check` raises if the user wants to stop meanwhile."""
        name, version, path = found.source
        self.rows += [Plugin(PurePath(path).name, name, version, error=reason) for reason in found.damage]
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
                file = getattr(module, "__file__", None) or file
                gives = registration.answers(module)
                found = [Entry(*each, source.name, source.version) for each in _classes(gives)]
                commands = registration.commands(gives.get("medgen_commands", ()))
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: one plugin must not take all down
            return row._replace(error=_reason(error), file=printable(str(file)))
        self.entries += found
        for command in commands:
            self.given.setdefault((str(command.name), point.value), Given(command, source.name, source.version))
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
        for name, cls in registration.classes(hook, gives[hook]) if hook in gives else ():
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
    if not attrs.has(cls):
        raise BrokenPluginError(f"{kind}.{name} is no settings class: it needs @settings")
    if not issubclass(cls, _BASES[kind]):
        bases = " or ".join(base.__name__ for base in _BASES[kind])
        raise BrokenPluginError(f"{kind}.{name} does not derive from medgen.{bases}")
    names = [each.name for each in fields(cls)]  # raises NameError for an annotation that cannot be read
    if kind == "losses" and "weight" in names:
        raise BrokenPluginError(f"{kind}.{name} has a field weight, which the core gives to every loss")
