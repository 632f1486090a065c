"""Find entry points of the group `medgen` in installed distributions, damaged ones included.

`importlib.metadata.entry_points` is not used: one unreadable file hides the entry points of all
packages, and of two distributions of the same name, such as a leftover, it reads only the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import Distribution, EntryPoint, PathDistribution, distributions
from pathlib import Path, PurePath
from typing import NamedTuple

from medgen.errors import printable

GROUP = "medgen"


class Source(NamedTuple):
    """A distribution and the path of its metadata."""

    name: str
    version: str
    path: str


class Found(NamedTuple):
    """The entry points of a distribution, and the faults of its metadata."""

    source: Source
    points: tuple[EntryPoint, ...] = ()
    damage: tuple[str, ...] = ()


def found() -> list[Found]:
    """Read distributions that have medgen's entry points, or whose damaged metadata may hide some.

    Distributions of the same name are adjacent, in the order in which to try them.
    """
    named: dict[str, list[Found]] = {}
    seen = set()
    for distribution in distributions():
        read = _read(distribution)
        if (
            read.points or read.damage
        ) and read.source not in seen:  # a folder may be on sys.path twice
            seen.add(read.source)
            named.setdefault(re.sub(r"[-_.]+", "-", read.source.name).lower(), []).append(read)
    return [each for name in sorted(named) for each in _in_order(named[name])]


def _read(distribution: Distribution) -> Found:
    source = _of_path(distribution)
    if source.name.startswith("~"):
        return Found(
            source, (), (f"{source.path}: left by an interrupted pip",) * _is_ours(distribution)
        )
    try:
        points = _points(distribution)
    except Exception as error:  # whatever a finder or a parser raises
        return Found(
            source, (), (f"{source.path}/entry_points.txt: cannot be read ({_said(error)})",)
        )
    if not points:
        return Found(source)
    try:
        about = distribution.metadata
        name, version = str(about["Name"] or ""), str(about["Version"] or source.version)
    except Exception as error:
        return Found(
            source, points, (f"{source.path}: its metadata cannot be read ({_said(error)})",)
        )
    if not name:
        return Found(
            source, points, (f"{source.path}: its metadata is missing, empty or has no name",)
        )
    return Found(Source(printable(name), printable(version), source.path), points)


def _points(distribution: Distribution) -> tuple[EntryPoint, ...]:
    """Return the entry points of medgen. Raises ValueError, or what importlib does, if some seem
    meant but cannot be read.
    """
    text = distribution.read_text("entry_points.txt")
    if text is None:
        _require_none(distribution)
    if f"[{GROUP}]" not in (text or "").replace(" ", ""):
        return ()
    points = tuple(point for point in distribution.entry_points if point.group == GROUP)
    if not points:
        raise ValueError(f"nothing is declared in [{GROUP}]")
    return points


def _require_none(distribution: Distribution) -> None:
    """Raise OSError if there is a file that importlib takes for none, as it may not be read."""
    folder = distribution._path if isinstance(distribution, PathDistribution) else None
    if isinstance(folder, Path):
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder / "entry_points.txt").open("rb").close()


def _is_ours(distribution: Distribution) -> bool:
    try:
        return bool(_points(distribution))
    except Exception:  # it has entry points of the group, and cannot be read: the row says so
        return True


def _of_path(distribution: Distribution) -> Source:
    """Read name and version from the metadata folder's name: `foo-1.0.dist-info`."""
    path = str(
        distribution._path
        if isinstance(distribution, PathDistribution)
        else type(distribution).__module__
    )
    stem = PurePath(path).name.removesuffix(".dist-info").removesuffix(".egg-info")
    name, _, version = stem.partition("-")
    return Source(
        printable(name or "unknown"), printable(version.split("-")[0] or "?"), printable(path)
    )


def _said(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}")[:200]


def _in_order(same: Sequence[Found]) -> Iterator[Found]:
    """Order distributions of the same name by `sys.path`, in each folder the newest first; older
    ones are leftovers.
    """
    folders = list(dict.fromkeys(_folder(each) for each in same))
    ordered = sorted(same, key=lambda each: _number(each.source.version), reverse=True)
    ordered.sort(key=lambda each: (folders.index(_folder(each)), bool(each.damage)))
    newest: dict[str, Source] = {}
    for each in ordered:
        first = newest.setdefault(_folder(each), each.source)
        if first == each.source:
            yield each
        else:
            beside = f"{each.source.path}: left over beside {PurePath(first.path).name}"
            yield each._replace(damage=(*each.damage, beside))


def _folder(each: Found) -> str:
    return str(PurePath(each.source.path).parent)


def _number(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d{1,9}", version)]
