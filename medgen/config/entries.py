"""What plugins give, as rows of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import click


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

    provides: kinds and names. error: reason if it is broken. file: the file to inspect, if the
    error names none.
    """

    name: str
    distribution: str
    version: str
    provides: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    file: str = ""


def describe(plugin: Plugin) -> str:
    """Describe a broken plugin: `ModuleNotFoundError: nosuch (bad-import 1.0), see FILE`."""
    return f"{plugin.error} ({plugin.distribution} {plugin.version})" + (
        f", see {plugin.file}" if plugin.file else ""
    )
