"""Import plugins so that whatever one does to the process is undone before the next."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from medgen.config.plugin_hooks import BrokenPluginError
from medgen.system.streams import Steady


@contextmanager
def contained() -> Iterator[None]:
    """Keep prints off stdout; restore streams, folder, logging and the import system afterwards.

    Raises BrokenPluginError if no module could be imported afterwards.
    """
    with _logging(), _folder(), _imports(), _streams():
        yield


@contextmanager
def _logging() -> Iterator[None]:
    """Restore the root logger, and drop filters that make warnings of other plugins errors."""
    root, filters = logging.getLogger(), list(warnings.filters)
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        for each in [
            each for each in warnings.filters if each[0] == "error" and each not in filters
        ]:
            warnings.filters.remove(each)  # type: ignore[attr-defined]  # a list, which typeshed calls a sequence


@contextmanager
def _folder() -> Iterator[None]:
    """Restore the current folder, on which relative paths of recipes depend."""
    try:
        before = os.getcwd()
    except OSError:  # it has been deleted
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            os.chdir(before)


@contextmanager
def _imports() -> Iterator[None]:
    """Keep new finders that work, as some packages need theirs, and what was there before."""
    finders, paths = list(sys.meta_path), list(sys.path)
    wrong = None
    try:
        yield
    finally:
        for each in [each for each in sys.meta_path if each not in finders]:
            if error := _failure(each):
                sys.meta_path.remove(each)
                wrong = error
        sys.meta_path += [each for each in finders if each not in sys.meta_path]
        sys.path += [each for each in paths if each not in sys.path]
    if wrong is not None:
        raise BrokenPluginError(
            f"put a finder on sys.meta_path that fails with {type(wrong).__name__}: {wrong}"
        )


def _failure(finder: Any) -> BaseException | None:
    """Return what a finder raises when it is asked for a module that nobody has."""
    try:
        finder.find_spec("medgen_asks_for_no_module", None, None)
    except BaseException as error:  # also SystemExit, which would end every later import
        return error
    return None


@contextmanager
def _streams() -> Iterator[None]:
    """Send stdout and stderr to a stream of their own, also what C and other programs print."""
    before = (sys.stdout, sys.stderr)
    for each in before:
        with suppress(AttributeError, OSError, ValueError):
            each.flush()
    handles = [_duplicate(number) for number in (1, 2)]
    own = _own_stderr()
    try:
        if None not in handles:
            os.dup2(2, 1)
        sys.stdout = sys.stderr = own
        yield
    finally:
        with suppress(OSError, ValueError):
            own.flush()
        for number, handle in enumerate(handles, 1):
            if handle is not None:
                os.dup2(handle, number)
                os.close(handle)
        sys.stdout, sys.stderr = (_opened(each, number) for number, each in enumerate(before, 1))


def _duplicate(number: int) -> int | None:
    try:
        return os.dup(number)
    except OSError:  # it is closed
        return None


class _Forward(io.TextIOBase):
    """A stream that may be closed, and another that stays open."""

    def __init__(self, target: Any):
        self._target = target

    def write(self, text: str) -> int:
        """Write to the other, if there is one."""
        return self._target.write(text) if self._target is not None else len(text)


def _own_stderr() -> Any:
    """Return a stream to stderr that a plugin may close, and keep for its log."""
    try:
        handle = os.dup(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # none, or none of the system's
        return _Forward(sys.stderr)
    return Steady(open(handle, "w", buffering=1, errors="backslashreplace"), "stderr", {})


def _is_closed(stream: object) -> bool:
    """Return True if a stream is closed; False for what is no file but another program's stream."""
    return isinstance(stream, io.IOBase) and stream.closed


def _opened(stream: Any, number: int) -> Any:
    """Return the stream, with a new one inside where a plugin closed it."""
    inner = stream.stream if isinstance(stream, Steady) else stream
    if not _is_closed(inner):
        return stream
    fresh = open(number, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115 - for as long as the process lives
    if not isinstance(stream, Steady):
        return fresh
    stream.stream = fresh
    return stream
