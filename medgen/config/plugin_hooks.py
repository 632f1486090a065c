"""Call the hooks of a plugin module and validate their answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import click
import pluggy

from medgen.api.hooks import Registration
from medgen.api.messages import did_you_mean

API = 1
"""The value of `medgen_api` that a plugin module must declare."""
GROUPS = ("data",)
"""Groups of commands that plugins may add to: a command named `data demo` is `medgen data demo`."""
_NAME = "[A-Za-z0-9_-]+"
_COMMAND = f"(({'|'.join(GROUPS)}) )?{_NAME}"


class BrokenPluginError(Exception):
    """A plugin cannot be used; the message is the reason, one line."""


def answers(module: ModuleType) -> dict[str, Any]:
    """Call every hook of a plugin once; return the answers by hook name."""
    _require_api(module)
    manager = pluggy.PluginManager("medgen")  # of its own, so that each answer has a known giver
    manager.add_hookspecs(Registration)
    manager.register(module)  # checks the signatures
    callers = manager.get_hookcallers(module) or []
    known = [name for name in vars(Registration) if name.startswith("medgen_")]
    for caller in callers:
        if not caller.has_spec():
            raise BrokenPluginError(
                f"{caller.name} is no hook of a plugin module. {did_you_mean(caller.name, known)}".rstrip()
            )
    if not callers:
        raise BrokenPluginError(f"implements none of {', '.join(known)}. Is @hookimpl missing?")
    return {caller.name: next(iter(caller()), None) for caller in callers}  # pluggy leaves None out


def _require_api(module: ModuleType) -> None:
    try:
        declared: object = module.medgen_api
    except AttributeError:
        raise BrokenPluginError(f"declares no medgen_api (have {API})") from None
    if declared != API:
        raise BrokenPluginError(f"requires medgen plugin API {declared!r} (have {API})")


def classes(hook: str, answer: object) -> Iterator[tuple[str, type]]:
    """Validate and yield a hook's settings classes with their names."""
    if not isinstance(answer, Mapping):
        raise BrokenPluginError(
            f"{hook} returned {_kind(answer)}, expected a dict of settings classes by name"
        )
    for name, cls in answer.items():
        _require_name(name, "a plugin")
        if not isinstance(cls, type):
            raise BrokenPluginError(
                f"{hook} returned {_kind(cls)} as {name}, expected a settings class"
            )
        yield name, cls


def commands(answer: object) -> list[click.Command]:
    """Validate and return the commands of `medgen_commands`."""
    if not isinstance(answer, Sequence) or isinstance(answer, str | bytes):
        raise BrokenPluginError(
            f"medgen_commands returned {_kind(answer)}, expected a list of click commands"
        )
    given: dict[str, click.Command] = {}
    for command in answer:
        if not isinstance(command, click.Command):
            raise BrokenPluginError(
                f"medgen_commands returned a list with {_kind(command)}, expected click commands"
            )
        _require_name(command.name, "a command", _COMMAND)
        command.get_short_help_str()  # what `medgen --help` shows of it, which must not fail there
        if str(command.name) in given:
            raise BrokenPluginError(
                f"medgen_commands returned two commands with the name {command.name}"
            )
        given[str(command.name)] = command
    return list(given.values())


def _require_name(name: object, what: str, pattern: str = _NAME) -> None:
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        raise BrokenPluginError(f"{name!r} is no name for {what}: letters, digits, _ and - only")


def _kind(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
