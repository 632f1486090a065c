"""Read tables of TOML as settings objects, and back.

Strictly (`true` and `3.0` are no integers, `"3"` is no number), and with every mistake of the table
at once.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import attrs
from cattrs import Converter
from cattrs.cols import list_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
)
from cattrs.gen import make_dict_structure_fn, make_mapping_structure_fn, override

from medgen.api.field_types import (
    NOUNS,
    expectation,
    fixed_length,
    is_union,
    members_of,
    noun,
    origin_of,
)
from medgen.api.messages import KeyPath, unknown_key
from medgen.api.settings import attributes
from medgen.api.value_checks import Check, Mismatch, require
from medgen.errors import Problem
from medgen.system.names import native

T = TypeVar("T")
LARGEST = 3e38
"""Largest number in a recipe."""
LARGEST_INTEGER = 2**63 - 1
"""Largest integer in a recipe; torch and numpy hold 64 bits."""


def structure(table: object, cls: type[T], where: str = "") -> tuple[T | None, list[Problem]]:
    """Read a table of TOML as a settings class. Returns the object and no problems, or None and
    every problem.

    where: the key path of the table, such as `losses.huber`.
    """
    path = KeyPath(where.split(".") if where else ())
    try:
        return _converter().structure(table, cls), []
    except Exception as error:  # an author's class may raise anything when it is made
        return None, list(_problems(error, table, path))


@functools.cache
def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind in NOUNS:
        converter.register_structure_hook(kind, _scalar)
    converter.register_structure_hook_func(lambda kind: origin_of(kind) is Literal, _literal)
    converter.register_structure_hook_factory(
        is_union, lambda kind: functools.partial(_union, converter)
    )
    converter.register_structure_hook_factory(
        lambda kind: origin_of(kind) in (list, tuple), lambda kind: _list_hook(converter, kind)
    )
    converter.register_structure_hook_factory(
        lambda kind: origin_of(kind) is dict, lambda kind: _table_hook(converter, kind)
    )
    converter.register_structure_hook_factory(attrs.has, lambda cls: _settings_hook(converter, cls))
    return converter


def _scalar(value: Any, kind: type) -> Any:
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        if abs(value) > LARGEST:  # torch computes in float32
            raise Mismatch(value, f"a number of at most {LARGEST:g}")
        return float(value)
    if kind is int and type(value) is int:
        if abs(value) > LARGEST_INTEGER:
            bound = (
                f"of at most {LARGEST_INTEGER}" if value > 0 else f"of at least -{LARGEST_INTEGER}"
            )
            raise Mismatch(value, f"an integer {bound}")
        return value
    if kind in (bool, str) and type(value) is kind:
        return value
    if kind is Path and isinstance(value, str) and "\0" not in value:
        return _path(value)
    raise Mismatch(value, noun(kind))


def _path(value: str) -> Path:
    path = os.path.expandvars(os.path.expanduser(value))
    unset = re.search(r"\$(\w+|\{\w+\})", path)
    if unset:
        raise Mismatch(value, f"a path, but {unset[0]} is not set")
    return Path(native(path))


def _literal(value: Any, kind: Any) -> Any:
    for option in get_args(kind):
        if type(option) is type(value) and option == value:
            return value
    raise Mismatch(value, noun(kind), get_args(kind))


def _union(converter: Converter, value: Any, kind: Any) -> Any:
    members: tuple[Any, ...] = members_of(kind)
    alike = [member for member in members if _container(member) is type(value)]
    if len(members) == 1 or len(alike) == 1:
        return converter.structure(value, (alike or members)[0])
    for member in members:
        try:
            return converter.structure(value, member)
        except ValueError:
            continue
    raise Mismatch(value, noun(kind))


def _meant(value: object, kind: Any) -> Any:
    """Return the member of a union that an integer is meant for, for messages; else the type."""
    return int if type(value) is int and is_union(kind) and int in members_of(kind) else kind


def _container(kind: Any) -> type | None:
    """Return the container type of TOML that a kind is read from; None for a scalar."""
    origin: Any = origin_of(kind)
    if origin in (list, tuple):
        return list
    return dict if origin is dict or attrs.has(origin) else None


def _list_hook(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:
    members: Any = list[get_args(kind)[0]]  # type: ignore[misc]
    container: Any = origin_of(kind)
    read, count = list_structure_factory(members, converter), fixed_length(kind)

    def structured(value: object, _: object) -> object:
        found = read(_only(list, value, kind), members)
        if count is not None and len(found) != count:
            raise Mismatch(value, noun(kind))
        return container(found)

    return structured


def _table_hook(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:
    read = make_mapping_structure_fn(kind, converter)
    return lambda value, _: read(_only(dict, value, kind), kind)


def _settings_hook(converter: Converter, cls: type) -> Callable[[Any, Any], Any]:
    hooks = {
        each.name: override(struct_hook=_field_hook(converter, each)) for each in attributes(cls)
    }
    read: Any = make_dict_structure_fn(cls, converter, **hooks)  # type: ignore[arg-type]
    return lambda value, _: read(_only(dict, value, cls), cls)


def _field_hook(converter: Converter, attribute: attrs.Attribute[Any]) -> Callable[[Any, Any], Any]:
    """Make a hook that converts and checks a field; attrs' own validators run only after every
    field is converted.
    """
    check: Check | None = attribute.metadata.get("check")

    def read(value: object, kind: type) -> object:
        expected = expectation(_meant(value, attribute.type), check)
        try:
            structured: object = converter.structure(value, kind)
        except Mismatch as mismatch:
            too_large = check is not None and type(value) is int and not check.test(value)
            if (
                mismatch.expected != noun(attribute.type) and not too_large
            ):  # it knows better than the type does
                raise
            raise Mismatch(value, expected, check.values if check else mismatch.options) from None
        if check is not None:
            require(check, value, expected)  # as it was given, for the message
        return structured

    return read


def _only(container: type, value: Any, kind: Any) -> Any:
    """Require a container of this type: cattrs would accept a string as a list of its letters."""
    if not isinstance(value, container):
        raise Mismatch(value, noun(kind))
    return value


def _problems(error: BaseException, table: Any, path: KeyPath) -> Iterator[Problem]:
    """Yield the leaves of cattrs' tree of exceptions. table: the value at `path`."""
    if isinstance(error, (ClassValidationError, IterableValidationError)):
        below, others = error.group_exceptions()
        for each, note in below:
            key = note.name if isinstance(note, AttributeValidationNote) else note.index
            yield from _problems_below(each, table, path.below(key), note.type)
        for other in others:
            yield from _problems(other, table, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        names = [each.name for each in attrs.fields(error.cl)]
        yield from (unknown_key(path.below(key), names) for key in sorted(error.extra_fields))
    elif isinstance(error, Mismatch):
        yield Problem(path.below(*error.path), error.what, error.fix)
    else:
        yield Problem(path, str(error))


def _problems_below(error: Exception, table: Any, path: KeyPath, kind: Any) -> Iterator[Problem]:
    """Yield problems of a member of `table`. path: the member's. kind: its type."""
    if isinstance(error, KeyError) and path[-1] not in table:
        yield Problem(path, f"missing, expected {noun(kind)}", "Give it a value")
    else:
        yield from _problems(error, table[path[-1]], path)
