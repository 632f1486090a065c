"""What people see: bars on a terminal, plain lines of fixed fields in a log."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console

from medgen.errors import MedgenError, printable
from medgen.system.streams import is_terminal

_LOG_WIDTH = 4096  # rich would cut lines in a file at 80
_LOG_SECONDS = 30.0


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(
        stream, io.TextIOWrapper
    ):  # a name that the terminal's or log's encoding lacks is shown escaped
        stream.reconfigure(errors="backslashreplace")
    return Console(
        stderr=stderr,
        soft_wrap=True,
        markup=False,
        emoji=False,
        highlight=False,
        width=None if is_terminal(stream) else _LOG_WIDTH,
    )


out = _console(stderr=False)
"""Results, on stdout."""
err = _console(stderr=True)
"""Progress and errors, on stderr."""


def fail(error: MedgenError) -> None:
    """Print each problem as one line on stderr, as it is."""
    for line in error.lines:
        err.print(f"medgen: {line}")


def say(text: str) -> None:
    """Print one line on stdout, as it is."""
    out.print(printable(text), markup=False)


def warn(text: str) -> None:
    """Print one line on stderr that a user should know of, though the work goes on."""
    err.print(f"medgen: warning: {printable(text)}", markup=False)


class Progress(Protocol):
    """How far some work has come."""

    def advance(self, n: int = 1) -> None:
        """Note that so many more are done."""

    def update(self, done: int, total: int) -> None:
        """Note that so many of so many are done, for work that finds out later how much there is."""


@contextlib.contextmanager
def progress(description: str, total: int = 0, unit: str = "") -> Iterator[Progress]:
    """Shows progress on stderr: `with progress("demo patients", 30) as bar: bar.advance()`.

    unit: what is counted, such as `patients`.
    """
    if err.is_terminal:
        with _Bar(description, total, unit) as bar:
            yield bar
    else:
        yield _Lines(description, total, unit)


class _Bar:
    """A bar on a terminal."""

    def __init__(self, description: str, total: int, unit: str):
        from rich import progress as rich

        columns = ("{task.description}", rich.BarColumn(), rich.MofNCompleteColumn(), unit)
        times = (rich.TimeElapsedColumn(), "elapsed", rich.TimeRemainingColumn(), "left")
        self._bar = rich.Progress(rich.SpinnerColumn(), *columns, *times, console=err)
        self._task = self._bar.add_task(description, total=total or None)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, n: int = 1) -> None:
        self._bar.advance(self._task, n)

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)


class _Lines:
    """A line at each tenth, at most one a second, at the end, and at least every half minute."""

    def __init__(self, description: str, total: int, unit: str):
        self._name, self._unit = description, unit
        self._done, self._total, self._tenth, self._found = 0, total, 0, 0
        self._began = self._shown = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self.update(self._done + n, self._total)

    def update(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        now, tenth = time.monotonic(), done * 10 // max(total, 1)
        if now - self._began < 1 and done < total:
            self._found = done  # it was there before, and tells no speed
        waited = now - self._shown
        if (tenth > self._tenth and (waited >= 1 or done >= total)) or waited >= _LOG_SECONDS:
            self._tenth, self._shown = tenth, now
            err.print(self._line(now - self._began))

    def _line(self, elapsed: float) -> str:
        done, total = self._done, max(self._total, self._done)
        made = done - self._found
        left = elapsed / made * (total - done) if made else 0.0
        count = f"{done:>{len(str(total))}}/{total}{' ' + self._unit if self._unit else ''}"
        return f"{self._name}  {count}  {100 * done // max(total, 1):3d}%  {clock(elapsed)} elapsed  {clock(left)} left"


def clock(seconds: float) -> str:
    """Return `03:21`, or `1:03:21` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
