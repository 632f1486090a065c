"""stdout and stderr that may fail: a full disk, a reader that is gone, a closed terminal. Work goes
on without them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from medgen.errors import Problem

NAMES = ("stdout", "stderr")
GONE = (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET)
"""What a stream gives whose reader has ended, most often because it has seen enough, as `head`
does.
"""


class Steady:
    """A stream whose writes never raise. error: the first that one of them met."""

    def __init__(self, stream: Any, name: str, others: dict[str, Steady]):
        self.stream, self.name, self._others = stream, name, others
        self.error: OSError | None = None
        self.working = False
        """Whether files are written that count, and what is printed is only a log of that."""

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        with self._survived():
            self.stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each, if that is possible."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with self._survived():
            self.stream.flush()

    def finish(self) -> None:
        """Flush for the last time; Python would exit with 120 if it met the error once more."""
        self.flush()
        if self.error is not None:
            self._discard()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextlib.contextmanager
    def _survived(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._lose(error)
        except UnicodeError:
            raise
        except ValueError:  # it is closed
            self._lose(OSError(errno.EBADF, os.strerror(errno.EBADF)))

    def _lose(self, error: OSError) -> None:
        first, self.error = self.error is None, self.error or error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # which may pass
            self._discard()
        if first and self.working:
            for other in self._others.values():
                if other is not self and other.error is None:
                    other.write(f"medgen: warning: {self.line()} The work goes on without it.\n")
                    other.flush()

    def line(self) -> str:
        """Return what happened to it."""
        error = self.error
        return f"{self.name}: cannot be written ({error.strerror or error if error else 'lost'})."

    def _discard(self) -> None:
        """Lead a handle nowhere from now on, also for C++ and for processes that inherit it."""
        with contextlib.suppress(OSError, ValueError):
            handle = self.stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, handle)
            os.close(nowhere)
            self.stream.flush()


_steady: dict[str, Steady] = {}


@contextlib.contextmanager
def steady() -> Iterator[dict[str, Steady]]:
    """Let stdout and stderr of this process be `Steady`."""
    if _steady:
        yield _steady
        return
    open_closed()
    before = {name: getattr(sys, name) for name in NAMES}
    _steady.update({name: Steady(stream, name, _steady) for name, stream in before.items()})
    for name, each in _steady.items():
        setattr(sys, name, each)
    try:
        yield _steady
    finally:
        for name, stream in before.items():
            _steady[name].finish()
            setattr(sys, name, stream)
        _steady.clear()


def open_closed() -> None:
    """Open handles 0 to 2 where closed (`>&-`), or the next opened file would become stdout."""
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for number, name in enumerate(NAMES, 1):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115 - for as long as the process lives


def only_log() -> None:
    """Treat what is printed as a log from now on, as files are written that count."""
    for each in _steady.values():
        each.working = True


def cut_result() -> Problem | None:
    """Describe a result that could not be printed, where what is printed is all there is."""
    out = _steady.get("stdout")
    if out is None:
        return None
    out.flush()
    if out.error is None or out.error.errno in GONE or out.working:
        return None
    fix = "What it has is cut: make room, then give the same command again"
    return Problem("", out.line(), fix)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream, if there is one, is a terminal."""
    try:
        return stream is not None and bool(stream.isatty())
    except (OSError, ValueError):
        return False
