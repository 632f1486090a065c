"""Find settings classes by kind and name. A broken plugin is a row of the list, not a crash."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from medgen import __version__
from medgen.config import installed
from medgen.config.entries import Entry, Given, Plugin, describe
from medgen.config.plugin_loader import Loader
from medgen.errors import PluginError, Problem
from medgen.system.interruptible import interruptible

if TYPE_CHECKING:
    import click

SUSPECTS = 5
"""Maximum distributions that are named."""


class Registry:
    """Installed plugins. `plugins`: one per entry point, also broken. `entries`: settings classes."""

    def __init__(
        self, plugins: Sequence[Plugin], entries: Sequence[Entry], given: Sequence[Given] = ()
    ):
        self.plugins, self.entries, self.given = tuple(plugins), tuple(entries), tuple(given)

    @classmethod
    def load(cls) -> Registry:
        """Import every entry point of the group `medgen`."""
        loader = Loader()
        with interruptible("import of plugins") as check:
            for found in installed.found():
                loader.add(found, check)
        rows = sorted(loader.rows, key=lambda row: (row.distribution, row.name))
        return cls(rows, _distinct(loader.entries), list(loader.given.values()))

    def names(self, kind: str) -> tuple[str, ...]:
        """Return every name of a kind."""
        return tuple(dict.fromkeys(entry.name for entry in self.entries if entry.kind == kind))

    def find(self, kind: str, name: str) -> Entry | None:
        """Return the entry, or None for an unknown name. Raises PluginError if it is ambiguous or
        its plugin broken.
        """
        found = [entry for entry in self.entries if (entry.kind, entry.name) == (kind, name)]
        if len(found) > 1:
            raise PluginError(_ambiguous(found))
        broken = [plugin for plugin in self.plugins if plugin.name == name and plugin.error]
        if broken and not found:
            raise PluginError(
                Problem(
                    f"{kind}.{name}",
                    f"its plugin is broken: {describe(broken[0])}",
                    "Repair or remove it",
                )
            )
        return found[0] if found else None

    def get(self, kind: str, name: str) -> Entry:
        """Return the entry. Raises PluginError if it is unknown, ambiguous, or its plugin broken."""
        entry = self.find(kind, name)
        if entry is None:
            known = ", ".join(self.names(kind)) or "none"
            raise PluginError(
                Problem(f"{kind}.{name}", f"no such plugin, there are {known}", self.suspects())
            )
        return entry

    def suspects(self) -> str:
        """Return advice if a broken plugin may be what was looked for; else an empty string."""
        broken = dict.fromkeys(
            f"{each.distribution} {each.version}" for each in self.plugins if each.error
        )
        first = ", ".join(list(broken)[:SUSPECTS]) + ", ..." * (len(broken) > SUSPECTS)
        return (
            f"A broken plugin may be what gives it, of {first}: see `medgen plugins list`"
            if broken
            else ""
        )

    def commands(self) -> tuple[click.Command, ...]:
        """Return the commands of plugins."""
        return tuple(given.command for given in self.given)

    def givers(self, command: str, core: bool = False) -> list[str]:
        """Return the distributions with a command of this name. core: True if the core has one too."""
        own = [f"medgen {__version__}"] if core else []
        return own + [
            f"{each.distribution} {each.version}"
            for each in self.given
            if each.command.name == command
        ]

    def problems(self, core: Collection[str] = ()) -> list[Problem]:
        """Describe broken plugins and ambiguous names. core: names of the core's commands."""
        broken = [
            Problem(plugin.name, describe(plugin), "Repair or remove it")
            for plugin in self.plugins
            if plugin.error
        ]
        keys = dict.fromkeys((entry.kind, entry.name) for entry in self.entries)
        same = [
            [entry for entry in self.entries if (entry.kind, entry.name) == key] for key in keys
        ]
        commands = {
            str(command.name): self.givers(str(command.name), command.name in core)
            for command in self.commands()
        }
        return [
            *broken,
            *(_ambiguous(entries) for entries in same if len(entries) > 1),
            *(
                ambiguous(f"command.{name}", givers)
                for name, givers in commands.items()
                if len(givers) > 1
            ),
        ]


def ambiguous(what: str, givers: Sequence[str]) -> Problem:
    """Describe a name that several distributions use."""
    return Problem(what, f"given by {' and '.join(givers)}", "Uninstall one of them")


def _ambiguous(entries: Sequence[Entry]) -> Problem:
    givers = [f"{entry.distribution} {entry.version}" for entry in entries]
    return ambiguous(f"{entries[0].kind}.{entries[0].name}", givers)


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Remove duplicates: two entry points may name the same module."""
    return list(
        {(entry.kind, entry.name, entry.settings_class): entry for entry in entries}.values()
    )
