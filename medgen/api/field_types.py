"""The types that fields of settings may have, and what messages call them."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

from medgen.api.conditions import Check
from medgen.api.messages import as_toml

NOUNS = {
    bool: ("true or false", "true or false"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    Path: ("a path", "paths"),
}


def expectation(kind: object, check: Check | None = None) -> str:
    """Describe what is expected: `a number greater than 0`."""
    if check is None:
        return noun(kind)
    return check.expected if check.values else f"{noun(kind)} {check.expected}"


def noun(kind: object, plural: bool = False) -> str:
    """Describe a type: `a list of integers`."""
    if isinstance(kind, type) and kind in NOUNS:
        return NOUNS[kind][plural]
    origin, members = origin_of(kind), members_of(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(as_toml, members))
    if is_union(kind):
        return " or ".join(noun(member, plural) for member in members)
    if origin in (list, tuple):
        count = f"{len(members)} " if fixed_length(kind) else ""
        return f"{'lists' if plural else 'a list'} of {count}{noun(members[0], True) if members else 'values'}"
    return "tables" if plural else "a table"


def fixed_length(kind: object) -> int | None:
    """Return the length that `tuple[X, X]` demands; None for `tuple[X, ...]` and `list[X]`."""
    members = get_args(kind)
    return len(members) if origin_of(kind) is tuple and Ellipsis not in members else None


def members_of(kind: object) -> tuple[object, ...]:
    """Return the arguments of a generic type, but for None."""
    return tuple(member for member in get_args(kind) if member is not types.NoneType)


def origin_of(kind: object) -> object:
    """Return `list` for `list[int]`, and a type that is not generic as it is."""
    return get_origin(kind) or kind


def is_union(kind: object) -> bool:
    """Return True for `X | Y` and `X | None`."""
    return origin_of(kind) in (Union, types.UnionType)
