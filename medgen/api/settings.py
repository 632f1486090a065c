"""Settings: what a table of a recipe becomes.

A settings class is a frozen attrs class with keyword-only fields. `structure` reads a table into one, strictly (`true`
and `3.0` are no integers, `"3"` is no number), and reports every mistake of the table at once.
"""

from __future__ import annotations

import copy
import difflib
import functools
import json
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, overload

import attrs

from medgen.system.names import native, portable

if TYPE_CHECKING:
    # to type checkers it is attrs' own, which they know: a decorator of ours would need `field(default=...)` by keyword
    from attrs import frozen as settings
    from cattrs import Converter
else:

    def settings(cls):
        """Make a class a settings class: frozen, with keyword-only fields.

        Fields may be `bool, int, float, str, Path, tuple[X, ...], tuple[X, X], list[X], dict[str, X], Literal[...]`,
        another settings class, or `X | None`, where leaving the key out means None. `~` and `$VARS` are expanded in
        paths. For `check(recipe)` see `Settings`.
        """
        return attrs.frozen(cls, kw_only=True)


__all__ = [
    "Check",
    "Field",
    "Key",
    "Mismatch",
    "Problem",
    "as_toml",
    "between",
    "did_you_mean",
    "field",
    "fields",
    "ge",
    "gt",
    "inline_toml",
    "key_path",
    "le",
    "one_of",
    "settings",
    "structure",
    "unknown_key",
    "unstructure",
]
T = TypeVar("T")
Key = str | int
"""A step of a key path: the name of a key, or the position in a list."""

LARGEST = 3e38
"""Largest number in a recipe."""
LARGEST_INTEGER = 2**63 - 1
"""Largest integer in a recipe; torch and numpy hold 64 bits."""
_MESSAGE_VALUE_LENGTH = 80
_NOUNS = {
    bool: ("true or false", "true or false"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    Path: ("a path", "paths"),
}


class Check(NamedTuple):
    """A condition on a value beyond its type; in a list or a table it applies to each member.

    `expected` follows the name of the type in messages ("a number *greater than 0*"); with `values` it stands alone.
    """

    test: Callable[[Any], bool]
    expected: str
    values: tuple[Any, ...] = ()


def gt(bound: float) -> Check:
    """Require a value greater than `bound`."""
    return Check(lambda value: value > bound, f"greater than {bound}")


def ge(bound: float) -> Check:
    """Require a value of at least `bound`."""
    return Check(lambda value: value >= bound, f"of at least {bound}")


def le(bound: float) -> Check:
    """Require a value of at most `bound`."""
    return Check(lambda value: value <= bound, f"of at most {bound}")


def between(low: float, high: float) -> Check:
    """Require a value from `low` to `high`, both included."""
    return Check(lambda value: low <= value <= high, f"from {low} to {high}")


def one_of(*values: Any) -> Check:
    """Require one of these values."""
    return Check(lambda value: value in values, "one of " + ", ".join(map(as_toml, values)), values)


class Problem(NamedTuple):
    """A mistake in a table. `str(problem)` is the line to show, without the file."""

    path: tuple[Key, ...]
    message: str

    @property
    def key(self) -> str:
        """The key path as in a message: `network.unet.channels[1]`."""
        return key_path(self.path)

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


class Mismatch(ValueError):
    """A value differs from what was expected."""

    def __init__(self, value: object, expected: str, options: Iterable[Any] = (), path: tuple[Key, ...] = ()):
        super().__init__(f"got {as_toml(value)}, expected {expected}.{did_you_mean(value, options)}")
        self.path, self.expected, self.options = path, expected, tuple(options)


@overload
def field(*, help: str = "", check: Check | None = None) -> Any: ...
@overload
def field(default: T, *, help: str = "", check: Check | None = None) -> T: ...
def field(default: Any = attrs.NOTHING, *, help: str = "", check: Check | None = None) -> Any:
    """Declare a field of a settings class; without a default it is required.

    help: unit and meaning, printed by `medgen plugins show`. check: a condition on its values.
    Default lists and tables are copied for each object.
    """
    metadata = {"help": help, "check": check}
    validator = None if check is None else functools.partial(_validate, check)
    if isinstance(default, (list, dict)):
        return attrs.field(factory=lambda: copy.deepcopy(default), validator=validator, metadata=metadata)
    return attrs.field(default=default, validator=validator, metadata=metadata)


class Field(NamedTuple):
    """Description of a field of a settings class. default: `attrs.NOTHING` if it is required."""

    name: str
    type: Any
    expected: str
    default: Any
    help: str


def fields(cls: type) -> list[Field]:
    """Describe the fields of a settings class. Raises NameError for an annotation that names nothing."""
    return [_describe(attribute) for attribute in _attributes(cls)]


def structure(table: object, cls: type[T], where: str = "") -> tuple[T | None, list[Problem]]:
    """Read a table of TOML as a settings class. Returns the object and no problems, or None and every problem.

    where: the key path of the table, such as `losses.huber`.
    """
    path: tuple[Key, ...] = tuple(where.split(".")) if where else ()
    try:
        return _converter().structure(table, cls), []
    except Exception as error:  # an author's class may raise anything when it is made
        return None, list(_problems(error, table, path))


def unstructure(value: Any, paths: bool = True) -> Any:
    """Convert a settings object, or a value in it, to plain values for TOML. None is left out, as TOML lacks it.

    paths: False empties them.
    """
    if attrs.has(type(value)):
        value = {each.name: getattr(value, each.name) for each in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {key: unstructure(each, paths) for key, each in value.items() if each is not None}
    if isinstance(value, (list, tuple)):
        return [unstructure(each, paths) for each in value]
    if isinstance(value, Path):
        return portable(str(value)) if paths else ""
    return value


def key_path(path: Iterable[Key]) -> str:
    """Format a path of keys: `network.unet.channels[1]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{_bare(key)}" for key in path)[1:]


def as_toml(value: object) -> str:
    """Format a value as TOML on one line, shortened."""
    try:
        text = inline_toml(value)
    except (ValueError, RecursionError):  # Python writes no decimal integer beyond 4,300 digits
        text = "a value too large to show"
    return text if len(text) <= _MESSAGE_VALUE_LENGTH else text[: _MESSAGE_VALUE_LENGTH - 1] + "…"


def did_you_mean(given: object, options: Iterable[Any]) -> str:
    """Return ` Did you mean x?` for the closest of the options, or an empty string."""
    names = [option for option in options if isinstance(option, str)]
    lowered = {name.lower(): name for name in names}
    near = difflib.get_close_matches(given.lower(), lowered, n=1) if isinstance(given, str) else []
    return f" Did you mean {lowered[near[0]]}?" if near else ""


def unknown_key(key: str, names: Iterable[str]) -> str:
    """Describe an unknown key. names: the known keys."""
    names = tuple(names)
    hint, listed = did_you_mean(key, names), ", ".join(names)
    known = f"one of the keys {listed}." if listed else "no keys."
    return f"no such key.{hint}" if hint else f"no such key, expected {known}"


def _bare(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def inline_toml(value: object) -> str:
    """Format a value as TOML on one line, not shortened."""
    if isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_bare(key)} = {inline_toml(each)}" for key, each in value.items()) + " }"
            if value
            else "{}"
        )
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(inline_toml, value)) + "]"
    return json.dumps(str(value), ensure_ascii=False) if isinstance(value, Path) else str(value)


def _describe(attribute: attrs.Attribute[Any]) -> Field:
    default: Any = attribute.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    expected = _expected(attribute.type, attribute.metadata.get("check"))
    return Field(attribute.name, attribute.type, expected, default, attribute.metadata.get("help", ""))


def _validate(check: Check, _: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    _require(check, value, _expected(attribute.type, check), (attribute.name,))


def _require(check: Check, value: Any, expected: str, path: tuple[Key, ...] = ()) -> None:
    for at, each in _members(value):
        if each is not None and not check.test(each):
            raise Mismatch(each, _expected_member(check) if at else expected, check.values, path + at)


def _members(value: Any, path: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], Any]]:
    if not isinstance(value, (list, tuple, dict)):
        yield path, value
        return
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _members(each, (*path, key))


def _expected(kind: Any, check: Check | None = None) -> str:
    if check is None:
        return _noun(kind)
    return check.expected if check.values else f"{_noun(kind)} {check.expected}"


def _expected_member(check: Check) -> str:
    return check.expected if check.values else f"a value {check.expected}"


def _noun(kind: Any, plural: bool = False) -> str:
    if kind in _NOUNS:
        return _NOUNS[kind][plural]
    origin, members = _origin(kind), _members_of(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(as_toml, members))
    if _is_union(kind):
        return " or ".join(_noun(member, plural) for member in members)
    if origin in (list, tuple):
        count = f"{len(members)} " if _fixed_length(kind) else ""
        return f"{'lists' if plural else 'a list'} of {count}{_noun(members[0], True) if members else 'values'}"
    return "tables" if plural else "a table"


def _fixed_length(kind: Any) -> int | None:
    """Return the length that `tuple[X, X]` demands; None for `tuple[X, ...]` and `list[X]`, which have any."""
    members = get_args(kind)
    return len(members) if _origin(kind) is tuple and Ellipsis not in members else None


def _members_of(kind: Any) -> tuple[Any, ...]:
    return tuple(member for member in get_args(kind) if member is not types.NoneType)


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


def _is_union(kind: Any) -> bool:
    return _origin(kind) in (Union, types.UnionType)


@functools.cache
def _converter() -> Converter:
    from cattrs import Converter  # slow to import, and `medgen --help` structures nothing

    converter = Converter(forbid_extra_keys=True)
    for kind in _NOUNS:
        converter.register_structure_hook(kind, _scalar)
    converter.register_structure_hook_func(lambda kind: _origin(kind) is Literal, _literal)
    converter.register_structure_hook_factory(_is_union, lambda kind: functools.partial(_union, converter))
    converter.register_structure_hook_factory(
        lambda kind: _origin(kind) in (list, tuple), lambda kind: _list_hook(converter, kind)
    )
    converter.register_structure_hook_factory(
        lambda kind: _origin(kind) is dict, lambda kind: _table_hook(converter, kind)
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
            bound = f"of at most {LARGEST_INTEGER}" if value > 0 else f"of at least -{LARGEST_INTEGER}"
            raise Mismatch(value, f"an integer {bound}")
        return value
    if kind in (bool, str) and type(value) is kind:
        return value
    if kind is Path and isinstance(value, str) and "\0" not in value:
        return _path(value)
    raise Mismatch(value, _noun(kind))


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
    raise Mismatch(value, _noun(kind), get_args(kind))


def _union(converter: Converter, value: Any, kind: Any) -> Any:
    members = _members_of(kind)
    alike = [member for member in members if _container(member) is type(value)]
    if len(members) == 1 or len(alike) == 1:
        return converter.structure(value, (alike or members)[0])
    for member in members:
        try:
            return converter.structure(value, member)
        except ValueError:
            continue
    raise Mismatch(value, _noun(kind))


def _container(kind: Any) -> type | None:
    """Return the container type of TOML that a kind is read from; None for a scalar."""
    origin = _origin(kind)
    if origin in (list, tuple):
        return list
    return dict if origin is dict or attrs.has(origin) else None


def _list_hook(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:
    from cattrs.cols import list_structure_factory

    members: Any = list[get_args(kind)[0]]  # type: ignore[misc]
    read, count = list_structure_factory(members, converter), _fixed_length(kind)

    def structured(value: Any, _: Any) -> Any:
        found = read(_only(list, value, kind), members)
        if count is not None and len(found) != count:
            raise Mismatch(value, _noun(kind))
        return _origin(kind)(found)

    return structured


def _table_hook(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:
    from cattrs.gen import make_mapping_structure_fn

    read = make_mapping_structure_fn(kind, converter)
    return lambda value, _: read(_only(dict, value, kind), kind)


def _settings_hook(converter: Converter, cls: type) -> Callable[[Any, Any], Any]:
    from cattrs.gen import make_dict_structure_fn, override

    hooks = {each.name: override(struct_hook=_field_hook(converter, each)) for each in _attributes(cls)}
    read: Any = make_dict_structure_fn(cls, converter, **hooks)  # type: ignore[arg-type]
    return lambda value, _: read(_only(dict, value, cls), cls)


def _field_hook(converter: Converter, attribute: attrs.Attribute[Any]) -> Callable[[Any, Any], Any]:
    """Make a hook that converts and checks a field; attrs' own validators run only after every field is converted."""
    check: Check | None = attribute.metadata.get("check")
    expected = _expected(attribute.type, check)

    def read(value: Any, kind: Any) -> Any:
        try:
            structured = converter.structure(value, kind)
        except Mismatch as mismatch:
            too_large = check is not None and type(value) is int and not check.test(value)
            if mismatch.expected != _noun(attribute.type) and not too_large:  # it knows better than the type does
                raise
            raise Mismatch(value, expected, check.values if check else mismatch.options) from None
        if check is not None:
            _require(check, value, expected)  # as it was given, for the message
        return structured

    return read


def _only(container: type, value: Any, kind: Any) -> Any:
    """Require a container of this type: cattrs would accept a string as a list of its letters."""
    if not isinstance(value, container):
        raise Mismatch(value, _noun(kind))
    return value


def _attributes(cls: type) -> tuple[attrs.Attribute[Any], ...]:
    return attrs.fields(attrs.resolve_types(cls))  # type: ignore[no-any-return]


def _problems(error: BaseException, table: Any, path: tuple[Key, ...]) -> Iterator[Problem]:
    """Yield the leaves of cattrs' tree of exceptions. table: the value at `path`."""
    from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

    if isinstance(error, BaseValidationError):
        for each in error.exceptions:
            yield from _problems_below(each, table, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        for key in sorted(error.extra_fields):
            names = [each.name for each in attrs.fields(error.cl)]
            yield Problem((*path, key), unknown_key(key, names))
    else:
        yield Problem(path + getattr(error, "path", ()), str(error))


def _problems_below(error: Exception, table: Any, path: tuple[Key, ...]) -> Iterator[Problem]:
    """Yield problems of the member of `table` that the exception's note names, or of the whole table."""
    for note in getattr(error, "__notes__", ()):
        key: Key | None = getattr(note, "name", getattr(note, "index", None))
        if key is not None and isinstance(error, KeyError) and key not in table:
            yield Problem((*path, key), f"missing, expected {_noun(note.type)}. Give it a value.")
            return
        if key is not None:
            yield from _problems(error, table[key], (*path, key))
            return
    yield from _problems(error, table, path)
