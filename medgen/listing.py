"""What `medgen plugins` prints."""

from __future__ import annotations

import inspect

import attrs
import tomli_w
from rich.table import Table

from medgen.console import out, warn
from medgen.errors import PluginError
from medgen.kinds import KINDS
from medgen.registry import Entry, Registry, describe
from medgen.settings import Field, did_you_mean, fields, unstructure


def table(registry: Registry) -> None:
    """A row per plugin: kind, name, distribution, and what it is for; broken ones with the reason."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "name", "from", "what"):
        rows.add_column(title, overflow="fold", no_wrap=title != "what")
    for entry in sorted(registry.entries, key=lambda each: (KINDS.index(each.kind), each.name)):
        rows.add_row(entry.kind, entry.name, f"{entry.distribution} {entry.version}", _summary(entry.settings_class))
    for plugin in registry.plugins:
        for _, name in (each for each in plugin.provides if each[0] == "command"):
            rows.add_row("command", name, f"{plugin.distribution} {plugin.version}", "")
        if plugin.error:
            rows.add_row("broken", plugin.name, f"{plugin.distribution} {plugin.version}", plugin.error)
    out.print(rows)
    for problem in registry.problems():
        warn(problem)


def page(registry: Registry, name: str) -> None:
    """Each plugin of that name: what it is for, and a block with its defaults to paste into a recipe."""
    found = [entry for entry in registry.entries if entry.name == name]
    if not found:
        broken = [plugin for plugin in registry.plugins if plugin.name == name and plugin.error]
        known = sorted({entry.name for entry in registry.entries})
        raise PluginError(
            [f"{name}: broken: {describe(each)}. Repair or remove it." for each in broken]
            or [f"{name}: no such plugin.{did_you_mean(name, known)} `medgen plugins list` shows all."]
        )
    for entry in found:
        out.print(_page(entry), markup=False, highlight=False, soft_wrap=True)


def _page(entry: Entry) -> str:
    lines = [f"# {entry.kind} {entry.name}, from {entry.distribution} {entry.version}"]
    lines += [f"# {line}".rstrip() for line in inspect.cleandoc(entry.settings_class.__doc__ or "").splitlines()]
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
    return (inspect.getdoc(cls) or "").split("\n")[0]
