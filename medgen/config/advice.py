"""What is said of a value that stands where a recipe needs a plugin's table."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from medgen.api.messages import KeyPath, as_toml
from medgen.api.values import SEVERAL
from medgen.errors import Problem


def not_tables(kind: str, given: object, names: Sequence[str]) -> Problem:
    """Describe a value in place of a kind's tables, such as `losses=mse`. names: of plugins."""
    near = dict.fromkeys(
        name for word in _words(given) for name in difflib.get_close_matches(word, names, 1)
    )
    add = " ".join(f"{kind}.{name}={{}}" for name in near or ["NAME"])
    what = f"got {as_toml(given)}, expected tables such as [{kind}.NAME]"
    return Problem(KeyPath((kind,)), what, f"Add with {add}, remove with {kind}.NAME=false")


def not_a_table(kind: str, name: str, given: object) -> Problem:
    """Describe a value in place of one plugin's table, such as `callbacks.ema=true`."""
    what = f"got {as_toml(given)}, expected a table"
    if kind == "tables":
        return Problem(KeyPath((name,)), what, f"Set its keys, as {name}.KEY=VALUE")
    removal = f", {kind}.{name}=false to remove it" if kind in SEVERAL else ""
    return Problem(KeyPath((kind, name)), what, f"Use {kind}.{name}={{}} for its defaults{removal}")


def _words(given: object) -> Iterator[str]:
    """Find names in what was given: `mse`, `mse,l1` or a list."""
    for each in given if isinstance(given, list) else [given]:
        if isinstance(each, str):
            yield from re.findall(r"[\w-]+", each)
