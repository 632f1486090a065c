"""Hooks for a forked process: it ends as by SIGKILL at a chosen point."""

from __future__ import annotations

import functools
import importlib
import os
import time
from collections.abc import Callable
from typing import Any


def die_at(where: str, call: int, after: bool) -> None:
    """End at the given call (from 1) of `module:attribute`, before it or after it."""
    owner, name = _find(where)
    original = getattr(owner, name)
    calls = iter(range(1, 1 << 30))

    @functools.wraps(original)
    def dying(*arguments: Any, **keywords: Any) -> Any:
        last = next(calls) == call
        if last and not after:
            os._exit(137)
        result = original(*arguments, **keywords)
        if last:
            os._exit(137)
        return result

    setattr(owner, name, dying)


def die_in_the_middle_of_a_line() -> None:
    """End when half of the third pair's line is in the manifest."""
    from medgen.generation.manifest import Manifest

    add = Manifest.add

    def dying(self: Manifest, entry: dict[str, Any]) -> None:
        if entry["index"] == 2:
            with open(self.path, "a") as file:
                file.write('{"index": 2, "id": "syn_00')
            os._exit(137)
        add(self, entry)

    Manifest.add = dying  # type: ignore[method-assign]


def go_no_further(pairs: int) -> None:
    """Make at most so many pairs, then wait to be killed."""
    _before_pair(pairs + 1, lambda: time.sleep(600))


def signal_at(number: int, pair: int) -> None:
    """Send this process a signal before it writes this pair, from 1."""
    _before_pair(pair, lambda: os.kill(os.getpid(), number))


def _before_pair(pair: int, do: Callable[[], None]) -> None:
    from medgen.generation import pair_writer

    real, calls = pair_writer.write_pair, iter(range(1, 1 << 30))

    def writing(*given: Any) -> None:
        if next(calls) == pair:
            do()
        real(*given)

    pair_writer.write_pair = writing


def _find(where: str) -> tuple[Any, str]:
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name
