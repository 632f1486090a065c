"""What is wrong with a file, in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from medgen.errors import DataError

COPY = "Copy it again"


REWRITE = "Convert it again from its source"


UNITS = "Convert it again, in mm"


NanPolicy = Literal["error", "zero"]


class Fault(NamedTuple):
    """What is wrong with a file, with the values, and what to do about it. patient: the id, where it is one's alone."""

    path: Path
    what: str
    fix: str
    patient: str = ""

    def line(self) -> str:
        """`<path>: <what>. <fix>.`, one line whatever the file is called."""
        return f"{printable(str(self.path))}: {self.what}. {self.fix}."


class ScanError(DataError):
    """Scans that cannot be used, each with what is wrong with it; a line per fault."""

    def __init__(self, faults: Iterable[Fault]):
        self.faults = list(faults)
        super().__init__(fault.line() for fault in self.faults)


class Problem(NamedTuple):
    what: str
    fix: str
    fatal: bool = True


class Refused(Exception):
    """Carries problems, at least one of them fatal, to where the path is known."""

    def __init__(self, problems: Iterable[Problem]):
        super().__init__()
        self.problems = list(problems)


class Limits(NamedTuple):
    max_voxels: int
    nan: NanPolicy
    mask: bool


def printable(text: str) -> str:
    """`text` with line breaks, terminal codes and undecodable bytes escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        raise ScanError(as_faults(path, refused.problems)) from None


def as_faults(path: Path, problems: Iterable[Problem], *, fatal: bool = True) -> list[Fault]:
    return [Fault(path, problem.what, problem.fix) for problem in problems if problem.fatal is fatal]


def refusal(what: str, fix: str) -> Refused:
    return Refused([Problem(what, fix)])


def refuse_fatal(problems: list[Problem]) -> None:
    if any(problem.fatal for problem in problems):
        raise Refused(problems)
