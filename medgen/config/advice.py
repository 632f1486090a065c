"""Messages for a value that stands where a recipe needs a plugin's table."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from medgen.api.settings import as_toml
from medgen.api.values import SEVERAL


def not_tables(kind: str, given: Any, names: Sequence[str]) -> str:
    """Describe a value in place of a kind's tables, such as `losses=mse`. names: those of its plugins."""
    near = dict.fromkeys(name for word in _words(given) for name in difflib.get_close_matches(word, names, 1))
    add = " ".join(f"{kind}.{name}={{}}" for name in near or ["NAME"])
    what = f"got {as_toml(given)}, expected tables such as [{kind}.NAME]"
    return f"{what}. Add with {add}, remove with {kind}.NAME=false."


def not_a_table(kind: str, name: str, given: Any) -> str:
    """Describe a value in place of one plugin's table, such as `callbacks.ema=true`."""
    what = f"got {as_toml(given)}, expected a table"
    if kind == "tables":
        return f"{what}. Set its keys, as {name}.KEY=VALUE."
    removal = f", {kind}.{name}=false to remove it" if kind in SEVERAL else ""
    return f"{what}. Use {kind}.{name}={{}} for its defaults{removal}."


def _words(given: Any) -> Iterator[str]:
    """Find names in what was given: `mse`, `mse,l1` or a list."""
    for each in given if isinstance(given, list) else [given]:
        if isinstance(each, str):
            yield from re.findall(r"[\w-]+", each)
