"""Make a misspelt member of a contract an error."""

from __future__ import annotations

import difflib

ALIKE = 0.8
"""Likeness, 0 to 1 (`difflib`), from which a name counts as a misspelt member."""


class Contract:
    """A base class with defaults, of which plugins derive.

    Raises TypeError, when a class is defined, for a public name close to that of a member: without
    the error the default would silently be used.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        bases = [base for base in cls.__mro__ if base.__module__.startswith("medgen.api.")]
        if cls in bases:
            return
        members = {
            name for base in bases for name in (*vars(base), *vars(base).get("__annotations__", {}))
        }
        public = sorted(name for name in members if not name.startswith("_"))
        for name in vars(cls):
            if (
                name.startswith("_")
                or name in members
                or name in vars(cls).get("__annotations__", {})
            ):
                continue
            if near := difflib.get_close_matches(name, public, 1, ALIKE):
                raise TypeError(
                    f"{cls.__name__}.{name} is no member of {bases[0].__name__}. Did you mean {near[0]}?"
                )
