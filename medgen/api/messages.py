"""The words of messages: values as TOML, key paths, likely names."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medgen.errors import Problem

Key = str | int
"""A step of a key path: the name of a key, or the position in a list."""

Plain = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None
"""A value of TOML or JSON; TOML lacks None."""

_MESSAGE_VALUE_LENGTH = 80


class KeyPath(tuple[Key, ...]):
    """Where in a recipe a value is. `str` gives `network.unet.channels[1]`."""

    __slots__ = ()

    def below(self, *keys: Key) -> KeyPath:
        """Return the path of a member."""
        return KeyPath((*self, *keys))

    def __str__(self) -> str:
        return "".join(f"[{key}]" if isinstance(key, int) else f".{_bare(key)}" for key in self)[1:]


def as_toml(value: object) -> str:
    """Format a value as TOML on one line, shortened."""
    try:
        text = inline_toml(value)
    except (ValueError, RecursionError):  # Python writes no decimal integer beyond 4,300 digits
        text = "a value too large to show"
    return text if len(text) <= _MESSAGE_VALUE_LENGTH else text[: _MESSAGE_VALUE_LENGTH - 1] + "…"


def inline_toml(value: object) -> str:
    """Format a value as TOML on one line, not shortened."""
    if isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return (
            "{ "
            + ", ".join(f"{_bare(key)} = {inline_toml(each)}" for key, each in value.items())
            + " }"
            if value
            else "{}"
        )
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(inline_toml, value)) + "]"
    return json.dumps(str(value), ensure_ascii=False) if isinstance(value, Path) else str(value)


def did_you_mean(given: object, options: Iterable[object]) -> str:
    """Return `Did you mean x?` for the closest of the options, or an empty string."""
    names = [option for option in options if isinstance(option, str)]
    lowered = {name.lower(): name for name in names}
    near = difflib.get_close_matches(given.lower(), lowered, n=1) if isinstance(given, str) else []
    return f"Did you mean {lowered[near[0]]}?" if near else ""


def unknown_key(path: KeyPath, names: Iterable[str]) -> Problem:
    """Describe an unknown key. path: its own. names: the known keys."""
    names = tuple(names)
    hint, listed = did_you_mean(path[-1], names), ", ".join(names)
    known = f"one of the keys {listed}" if listed else "no keys"
    return Problem(path, "no such key" if hint else f"no such key, expected {known}", hint)


def _bare(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
