"""What is wrong with a file, in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from medgen.errors import DataError, Problem

COPY = "Copy it again"


REWRITE = "Convert it again from its source"


UNITS = "Convert it again, in mm"


NanPolicy = Literal["error", "zero"]


class Defect(NamedTuple):
    """What is wrong with a file whose path is not known here, and what to do about it."""

    what: str
    fix: str
    fatal: bool = True


class Refused(Exception):
    """Carries problems, at least one of them fatal, to where the path is known."""

    def __init__(self, problems: Iterable[Defect]):
        super().__init__()
        self.problems = list(problems)


class Limits(NamedTuple):
    max_voxels: int
    nan: NanPolicy
    mask: bool


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        raise DataError(*as_faults(path, refused.problems)) from None


def as_faults(path: Path, problems: Iterable[Defect], *, fatal: bool = True) -> list[Problem]:
    return [
        Problem(path, problem.what, problem.fix) for problem in problems if problem.fatal is fatal
    ]


def refusal(what: str, fix: str) -> Refused:
    return Refused([Defect(what, fix)])


def refuse_fatal(problems: list[Defect]) -> None:
    if any(problem.fatal for problem in problems):
        raise Refused(problems)
