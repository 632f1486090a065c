"""Settings: what a table of a recipe becomes.

A settings class is a frozen attrs class with keyword-only fields, which `medgen.api.structure`
reads a table into.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import attrs

from medgen.api.conditions import Check, require
from medgen.api.field_types import expectation
from medgen.api.messages import Plain
from medgen.system.names import portable

if TYPE_CHECKING:
    # to type checkers it is attrs' own, which they know: a decorator of ours would need `field(default=...)` by keyword
    from attrs import frozen as settings
else:

    def settings(cls):
        """Make a class a settings class: frozen, with keyword-only fields.

        Fields may be `bool, int, float, str, Path, tuple[X, ...], tuple[X, X], list[X], dict[str,
        X], Literal[...]`, another settings class, or `X | None`, where leaving the key out means
        None. `~` and `$VARS` are expanded in paths. For `check(recipe)` see `Settings`.
        """
        return attrs.frozen(cls, kw_only=True)


__all__ = ["Field", "attributes", "field", "fields", "settings", "unstructure"]
T = TypeVar("T")


@overload
def field(*, help: str = "", check: Check | None = None) -> T: ...  # type: ignore[type-var]
@overload
def field(default: T, *, help: str = "", check: Check | None = None) -> T: ...
def field(default: object = attrs.NOTHING, *, help: str = "", check: Check | None = None) -> object:
    """Declare a field of a settings class; without a default it is required.

    help: unit and meaning, printed by `medgen plugins show`. check: a condition on its values.
    Default lists and tables are copied for each object.
    """
    metadata = {"help": help, "check": check}
    validator = None if check is None else functools.partial(_validate, check)
    if isinstance(default, (list, dict)):
        return attrs.field(
            factory=lambda: copy.deepcopy(default), validator=validator, metadata=metadata
        )
    return attrs.field(default=default, validator=validator, metadata=metadata)


class Field(NamedTuple):
    """Description of a field of a settings class. default: `attrs.NOTHING` if it is required."""

    name: str
    type: Any
    expected: str
    default: Any
    help: str


def fields(cls: type) -> list[Field]:
    """Describe the fields of a settings class. Raises NameError for an unknown annotation."""
    return [_describe(attribute) for attribute in attributes(cls)]


def unstructure(value: object, paths: bool = True) -> Plain:
    """Convert a settings object, or a value in it, to plain values for TOML. None is left out, as
    TOML lacks it.

    paths: False empties them.
    """
    kind: type = type(value)
    if attrs.has(kind):
        value = {each.name: getattr(value, each.name) for each in attrs.fields(kind)}
    if isinstance(value, Mapping):
        return {key: unstructure(each, paths) for key, each in value.items() if each is not None}
    if isinstance(value, (list, tuple)):
        return [unstructure(each, paths) for each in value]
    if isinstance(value, Path):
        return portable(str(value)) if paths else ""
    assert value is None or isinstance(value, bool | int | float | str), (
        value
    )  # a field has no other type
    return value


def attributes(cls: type) -> tuple[attrs.Attribute[Any], ...]:
    """Return attrs' description of the fields, with types in place of their names."""
    return attrs.fields(attrs.resolve_types(cls))  # type: ignore[no-any-return]


def _describe(attribute: attrs.Attribute[Any]) -> Field:
    default: Any = attribute.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    expected = expectation(attribute.type, attribute.metadata.get("check"))
    return Field(
        attribute.name, attribute.type, expected, default, attribute.metadata.get("help", "")
    )


def _validate(check: Check, owner: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    attributes(type(owner))  # until then attribute.type is a string, which names no expectation
    require(check, value, expectation(attribute.type, check), (attribute.name,))
