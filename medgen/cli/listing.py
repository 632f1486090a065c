"""What `medgen plugins` prints."""

from __future__ import annotations

import inspect
from collections.abc import Collection

import attrs
import click
import tomli_w
from rich.table import Table

from medgen.api.settings import Field, did_you_mean, fields, unstructure
from medgen.api.values import KINDS, MEASURES
from medgen.config.registry import Entry, Given, Registry, describe
from medgen.errors import PluginError
from medgen.system.console import out, printable, warn

_ORDER = (*KINDS, *MEASURES, "tables")


def table(registry: Registry) -> None:
    """Print a row per plugin: kind, name, distribution, and what it is for; for broken ones the reason and the file."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "name", "from", "what"):
        rows.add_column(title, overflow="fold", no_wrap=title != "what")
    for entry in sorted(registry.entries, key=lambda each: (_ORDER.index(each.kind), each.name)):
        rows.add_row(entry.kind, entry.name, f"{entry.distribution} {entry.version}", _summary(entry.settings_class))
    for given in sorted(registry.given, key=lambda each: str(each.command.name)):
        what = given.command.get_short_help_str(limit=100)
        rows.add_row("command", str(given.command.name), f"{given.distribution} {given.version}", printable(what))
    for plugin in registry.plugins:
        if plugin.error:
            what = plugin.error + (f", see {plugin.file}" if plugin.file else "")
            rows.add_row("broken", plugin.name, f"{plugin.distribution} {plugin.version}", what)
    out.print(rows)
    for problem in registry.problems(_core()):
        warn(problem)


def _core() -> Collection[str]:
    """The names of the commands of medgen's core."""
    context = click.get_current_context(silent=True)
    group = context.find_root().command if context else None
    return group.commands.keys() if isinstance(group, click.Group) else ()


def page(registry: Registry, name: str) -> None:
    """Print what each plugin of that name is for: a block with its defaults for a recipe, or a command's help."""
    found = [entry for entry in registry.entries if entry.name == name]
    given = [each for each in registry.given if each.command.name == name]
    if not found and not given:
        raise PluginError(_unknown(registry, name))
    for entry in found:
        out.print(_page(entry), markup=False, highlight=False, soft_wrap=True)
    for each in given:
        out.print(_help(each), markup=False, highlight=False, soft_wrap=True)


def _unknown(registry: Registry, name: str) -> list[str]:
    """Why there is no plugin of that name."""
    if name in _core():
        return [f"{name}: a command of medgen itself, no plugin. See `medgen {name} --help`."]
    broken = [plugin for plugin in registry.plugins if plugin.name == name and plugin.error]
    known = sorted({entry.name for entry in registry.entries} | {str(each.name) for each in registry.commands()})
    more = registry.suspects() or " `medgen plugins list` shows all."
    return [f"{name}: broken: {describe(each)}. Repair or remove it." for each in broken] or [
        f"{name}: no such plugin.{did_you_mean(name, known)}{more}"
    ]


def _help(given: Given) -> str:
    context = click.Context(given.command, info_name=f"medgen {given.command.name}")
    head = f"# command {given.command.name}, from {given.distribution} {given.version}"
    return f"{head}\n{given.command.get_help(context)}\n"


def _page(entry: Entry) -> str:
    lines = [f"# {entry.kind} {entry.name}, from {entry.distribution} {entry.version}"]
    lines += [f"# {line}".rstrip() for line in _text(entry.settings_class).splitlines()]
    lines.append(f"[{entry.kind}.{entry.name}]")
    for each in fields(entry.settings_class):
        lines.append(f"{_default(each):<32} # {each.help} ({each.expected})")
    return "\n".join(lines) + "\n"


def _default(each: Field) -> str:
    plain = unstructure(each.default) if each.default is not attrs.NOTHING else None
    if plain is None:
        return f"# {each.name} ="
    return tomli_w.dumps({each.name: plain}).strip().replace("\n", " ")


def _summary(cls: type) -> str:
    return _text(cls).split("\n")[0]


def _text(cls: type) -> str:
    """The docstring; none where a plugin has something else in its place."""
    return inspect.cleandoc(cls.__doc__) if isinstance(cls.__doc__, str) else ""
