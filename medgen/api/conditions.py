"""Conditions on the value of a key beyond its type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from medgen.api.messages import Key, KeyPath, as_toml, did_you_mean


class Check(NamedTuple):
    """A condition on a value beyond its type; in a list or a table it applies to each member.

    `expected` follows the name of the type in messages ("a number *greater than 0*"); with `values`
    it stands alone.
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


def one_of(*values: object) -> Check:
    """Require one of these values."""
    return Check(lambda value: value in values, "one of " + ", ".join(map(as_toml, values)), values)


class Mismatch(ValueError):
    """A value differs from what was expected."""

    def __init__(
        self,
        value: object,
        expected: str,
        options: Iterable[object] = (),
        path: tuple[Key, ...] = (),
    ):
        self.what, self.fix = (
            f"got {as_toml(value)}, expected {expected}",
            did_you_mean(value, options),
        )
        where = f"{KeyPath(path)}: " if path else ""
        super().__init__(f"{where}{self.what}. {self.fix}".rstrip())
        self.path, self.expected, self.options = path, expected, tuple(options)


def require(check: Check, value: object, expected: str, path: tuple[Key, ...] = ()) -> None:
    """Raise Mismatch unless the value, or each member of it, meets a condition. expected: in words."""
    for at, each in _members(value):
        if each is not None and not check.test(each):
            raise Mismatch(
                each, _expected_member(check) if at else expected, check.values, path + at
            )


def _members(value: object, path: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], object]]:
    if not isinstance(value, (list, tuple, dict)):
        yield path, value
        return
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _members(each, (*path, key))


def _expected_member(check: Check) -> str:
    return check.expected if check.values else f"a value {check.expected}"
