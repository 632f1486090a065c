"""Load settings classes by kind and name from entry points. A broken plugin is a row of the list, not a crash.

pluggy's own loader is not used: it stops at the first plugin that fails to import, and drops the second of two
distributions whose entry points share a name. `installed` finds the entry points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from medgen import __version__
from medgen.api.conditions import ge
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
from medgen.api.settings import field, fields, settings
from medgen.config import installed, registration
from medgen.config.containment import contained
from medgen.config.installed import Source
from medgen.config.registration import BrokenPluginError
from medgen.errors import PluginError, Problem, printable
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
"""Maximum characters of a reason; some errors have pages."""
SUSPECTS = 5
"""Maximum distributions that are named."""


class Entry(NamedTuple):
    """A settings class of a plugin."""

    kind: str
    name: str
    settings_class: type
    distribution: str
    version: str


class Given(NamedTuple):
    """A command of a plugin."""

    command: click.Command
    distribution: str
    version: str


class Plugin(NamedTuple):
    """An entry point, a row of `medgen plugins list`.

    provides: kinds and names. error: reason if it is broken. file: the file to inspect, if the error names none.
    """

    name: str
    distribution: str
    version: str
    provides: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    file: str = ""


class Registry:
    """Installed plugins. `plugins`: one per entry point, broken ones included; `entries`: their settings classes."""

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
        """Return every name of a kind."""
        return tuple(dict.fromkeys(entry.name for entry in self.entries if entry.kind == kind))

    def find(self, kind: str, name: str) -> Entry | None:
        """Return the entry, or None for an unknown name. Raises PluginError if it is ambiguous or its plugin broken."""
        found = [entry for entry in self.entries if (entry.kind, entry.name) == (kind, name)]
        if len(found) > 1:
            raise PluginError(_ambiguous(found))
        broken = [plugin for plugin in self.plugins if plugin.name == name and plugin.error]
        if broken and not found:
            raise PluginError(
                Problem(f"{kind}.{name}", f"its plugin is broken: {describe(broken[0])}", "Repair or remove it")
            )
        return found[0] if found else None

    def get(self, kind: str, name: str) -> Entry:
        """Return the entry. Raises PluginError if it is unknown, ambiguous, or its plugin broken."""
        entry = self.find(kind, name)
        if entry is None:
            known = ", ".join(self.names(kind)) or "none"
            raise PluginError(Problem(f"{kind}.{name}", f"no such plugin, there are {known}", self.suspects()))
        return entry

    def suspects(self) -> str:
        """Advice if there are broken plugins, one of which may give what no other does; else an empty string."""
        broken = dict.fromkeys(f"{each.distribution} {each.version}" for each in self.plugins if each.error)
        first = ", ".join(list(broken)[:SUSPECTS]) + ", ..." * (len(broken) > SUSPECTS)
        return f"A broken plugin may be what gives it, of {first}: see `medgen plugins list`" if broken else ""

    def commands(self) -> tuple[click.Command, ...]:
        """Return the commands of plugins."""
        return tuple(given.command for given in self.given)

    def givers(self, command: str, core: bool = False) -> list[str]:
        """Return the distributions with a command of this name. core: True if the core has one too."""
        own = [f"medgen {__version__}"] if core else []
        return own + [f"{each.distribution} {each.version}" for each in self.given if each.command.name == command]

    def problems(self, core: Collection[str] = ()) -> list[Problem]:
        """Describe broken plugins and ambiguous names. core: names of the core's commands."""
        broken = [
            Problem(plugin.name, describe(plugin), "Repair or remove it") for plugin in self.plugins if plugin.error
        ]
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
    """Describe a broken plugin's fault and origin: `ModuleNotFoundError: nosuch (bad-import 1.0), see FILE`."""
    return f"{plugin.error} ({plugin.distribution} {plugin.version})" + (f", see {plugin.file}" if plugin.file else "")


def ambiguous(what: str, givers: Sequence[str]) -> Problem:
    """Describe a name that several distributions use."""
    return Problem(what, f"given by {' and '.join(givers)}", "Uninstall one of them")


def _ambiguous(entries: Sequence[Entry]) -> Problem:
    givers = [f"{entry.distribution} {entry.version}" for entry in entries]
    return ambiguous(f"{entries[0].kind}.{entries[0].name}", givers)


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Remove duplicates: two entry points may name the same module."""
    return list({(entry.kind, entry.name, entry.settings_class): entry for entry in entries}.values())


class _Loader:
    """Imports entry points. Of distributions with the same name, the first that works provides each entry point."""

    def __init__(self) -> None:
        self.rows: list[Plugin] = []
        self.entries: list[Entry] = []
        self.given: dict[tuple[str, str], Given] = {}
        """By name and module, as two entry points may name the same module."""
        self._loaded: set[tuple[str, str]] = set()

    def add(self, found: installed.Found, check: Callable[[], None]) -> None:
        """Import a distribution's entry points; `check` raises if the user interrupts."""
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
    """Add the field `weight`, which every table `[losses.x]` has, to a loss's settings."""
    weight = field(1.0, help="factor of this loss in the sum", check=ge(0))
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
