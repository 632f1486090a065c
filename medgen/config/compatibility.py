"""Check the recipe of a resumed run: only length and settings that change no result may differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from medgen.api.messages import as_toml
from medgen.api.recipe import Recipe
from medgen.api.settings import unstructure
from medgen.api.values import SEVERAL, SINGLE
from medgen.config.resolver import CORE
from medgen.errors import CheckpointError, Problem

MORE_ONLY = ("training.steps", "training.epochs")
"""Keys that a resumed run may raise, but not lower."""


class Setting(NamedTuple):
    """The value of a key. free: True if a resumed run may change it."""

    value: Any
    free: bool


def check(old: Recipe, new: Recipe, folder: Path) -> None:
    """Raise CheckpointError with a line for each setting that a resumed run may not change.

    A settings class lists in `may_change` what changes no result; a table may come or go if that is
    all it has.
    """
    before, after = dict(_settings(old)), dict(_settings(new))
    wrong = [
        key for key in {**before, **after} if not _allowed(key, before.get(key), after.get(key))
    ]
    if wrong:
        fix = f'Keep it, or start a new run from these weights with training.init_from="{folder}/latest.pt"'
        changes = {
            key: f"{_show(before, key)} -> {_show(after, key)}, in {folder}" for key in wrong
        }
        raise CheckpointError(*(Problem(key, what, fix) for key, what in changes.items()))


def _allowed(key: str, old: Setting | None, new: Setting | None) -> bool:
    if old is None or new is None:
        return all(each is None or each.free for each in (old, new))
    if key in MORE_ONLY:
        return bool(new.value >= old.value)
    return old.free or old.value == new.value


def _settings(recipe: Recipe) -> Iterator[tuple[str, Setting]]:
    """List every key and value, with paths emptied. Tables are keys, so that empty ones count."""
    for table, part in _tables(recipe):
        names = [each.name for each in attrs.fields(type(part))]
        free = part.may_change
        yield table, Setting({}, bool(names) and set(names) <= set(free))
        for name in names:
            yield (
                f"{table}.{name}",
                Setting(unstructure(getattr(part, name), paths=False), name in free),
            )


def _tables(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    yield from ((name, getattr(recipe, name)) for name in CORE)
    yield from recipe.tables.items()
    yield from ((f"{kind}.{recipe.names[kind]}", getattr(recipe, kind)) for kind in SINGLE)
    yield from (
        (f"{kind}.{name}", each) for kind in SEVERAL for name, each in getattr(recipe, kind).items()
    )


def _show(settings: dict[str, Setting], key: str) -> str:
    return as_toml(settings[key].value) if key in settings else "nothing"
