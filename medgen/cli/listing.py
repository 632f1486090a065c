"""Print the list and the pages of `medgen plugins`."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from typing import cast

import attrs
import click
from rich.table import Table

from medgen.api.messages import did_you_mean, inline_toml
from medgen.api.recipe import WeightsSettings
from medgen.api.settings import Field, fields, unstructure
from medgen.api.values import KINDS, MEASURES
from medgen.config.entries import Entry, Given, describe
from medgen.config.registry import Registry
from medgen.errors import PluginError, Problem, printable
from medgen.system.console import out, warn

_ORDER = (*KINDS, *MEASURES, "weights", "tables")


def table(registry: Registry) -> None:
    """Print a row per plugin: kind, name, distribution and purpose, or why it is broken."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "name", "from", "what"):
        rows.add_column(title, overflow="fold", no_wrap=title != "what")
    for entry in sorted(registry.entries, key=lambda each: (_ORDER.index(each.kind), each.name)):
        rows.add_row(
            entry.kind,
            entry.name,
            f"{entry.distribution} {entry.version}",
            _summary(entry.settings_class),
        )
    for given in sorted(registry.given, key=lambda each: str(each.command.name)):
        what = given.command.get_short_help_str(limit=100)
        rows.add_row(
            "command",
            str(given.command.name),
            f"{given.distribution} {given.version}",
            printable(what),
        )
    for plugin in registry.plugins:
        if plugin.error:
            what = plugin.error + (f", see {plugin.file}" if plugin.file else "")
            rows.add_row("broken", plugin.name, f"{plugin.distribution} {plugin.version}", what)
    out.print(rows)
    for problem in registry.problems(_core()):
        warn(str(problem))


def _core() -> Collection[str]:
    """Return the names of the core's commands, with their groups: `data check`."""
    context = click.get_current_context(silent=True)
    root = context.find_root().command if context else None
    commands = root.commands if isinstance(root, click.Group) else {}
    groups = {
        name: each.commands for name, each in commands.items() if isinstance(each, click.Group)
    }
    return [*commands, *(f"{group} {name}" for group, each in groups.items() for name in each)]


def page(registry: Registry, name: str) -> None:
    """Print for each plugin of this name its defaults, to paste, and for each command its help."""
    found = [entry for entry in registry.entries if entry.name == name]
    given = [each for each in registry.given if each.command.name == name]
    if not found and not given:
        raise PluginError(*_unknown(registry, name))
    for entry in found:
        out.print(_page(entry), markup=False, highlight=False, soft_wrap=True)
    for each in given:
        out.print(_help(each), markup=False, highlight=False, soft_wrap=True)


def _unknown(registry: Registry, name: str) -> list[Problem]:
    """Explain why no plugin has this name."""
    if name in _core():
        return [
            Problem(name, "a command of medgen itself, no plugin", f"See `medgen {name} --help`")
        ]
    broken = [plugin for plugin in registry.plugins if plugin.name == name and plugin.error]
    known = sorted(
        {entry.name for entry in registry.entries}
        | {str(each.name) for each in registry.commands()}
    )
    more = registry.suspects() or "`medgen plugins list` shows all"
    hint = f"{did_you_mean(name, known)} {more}".strip()
    return [
        Problem(name, f"broken: {describe(each)}", "Repair or remove it") for each in broken
    ] or [Problem(name, "no such plugin", hint)]


def _help(given: Given) -> str:
    context = click.Context(given.command, info_name=f"medgen {given.command.name}")
    head = f"# command {given.command.name}, from {given.distribution} {given.version}"
    return f"{head}\n{given.command.get_help(context)}\n"


def _page(entry: Entry) -> str:
    lines = [f"# {entry.kind} {entry.name}, from {entry.distribution} {entry.version}"]
    lines += [f"# {line}".rstrip() for line in _text(entry.settings_class).splitlines()]
    key = entry.name if entry.kind == "tables" else f"{entry.kind}.{entry.name}"
    named = entry.kind == "weights"
    lines += _uses(entry) if named else _block(entry.settings_class, key)
    return "\n".join(lines) + "\n"


def _uses(entry: Entry) -> Iterator[str]:
    """Write the settings that weights may be named in."""
    for purpose in cast("type[WeightsSettings]", entry.settings_class).files:
        key = "space.latent.checkpoint" if purpose == "autoencoder" else "training.init_from"
        mode = "" if purpose == "autoencoder" else f"   # of mode {purpose}"
        yield f'{key} = "{entry.name}"{mode}'


def _block(cls: type, table: str) -> Iterator[str]:
    """Write a table of TOML with its defaults and what each key means, and the tables in it after
    its own keys.
    """
    yield f"[{table}]"
    inner = [each for each in fields(cls) if attrs.has(type(each.default))]
    for each in fields(cls):
        if each not in inner:
            yield f"{_default(each):<32} # {each.help} ({each.expected})"
    for each in inner:
        yield from ("", f"# {each.help}", *_block(type(each.default), f"{table}.{each.name}"))


def _default(each: Field) -> str:
    plain = unstructure(each.default) if each.default is not attrs.NOTHING else None
    return f"# {each.name} =" if plain is None else f"{each.name} = {inline_toml(plain)}"


def _summary(cls: type) -> str:
    return " ".join(_text(cls).split("\n\n")[0].split())


def _text(cls: type) -> str:
    """Return the docstring; none where a plugin has something else in its place."""
    return inspect.cleandoc(cls.__doc__) if isinstance(cls.__doc__, str) else ""
