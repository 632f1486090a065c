"""Indices of a process: whole blocks, computed by arithmetic, so that a billion need no memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from medgen.errors import Problem, RecipeError


class Indices(Sequence[int]):
    """The indices below `total` of one part, 1..`parts`: every `parts`-th block, each block whole."""

    def __init__(self, total: int, batch_size: int, part: int, parts: int):
        self.total, self.batch_size = total, batch_size
        self.blocks = range(part - 1, -(-total // batch_size), parts)

    def of(self, block: int) -> range:
        """Return the indices of a block."""
        return range(block * self.batch_size, min((block + 1) * self.batch_size, self.total))

    def __len__(self) -> int:
        return sum(map(len, map(self.of, self.blocks[-1:]))) + self.batch_size * len(
            self.blocks[:-1]
        )

    def __iter__(self) -> Iterator[int]:
        for block in self.blocks:
            yield from self.of(block)

    def __contains__(self, index: object) -> bool:
        return (
            isinstance(index, int)
            and 0 <= index < self.total
            and index // self.batch_size in self.blocks
        )

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...
    def __getitem__(self, place: int | slice) -> int | list[int]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        place = range(len(self))[place]
        return self.of(self.blocks[place // self.batch_size])[place % self.batch_size]


def wanted(
    count: int | None, only: Sequence[int], batch_size: int, part: tuple[int, int]
) -> Sequence[int]:
    """Return the indices to make: those named, or one part of those below `count`.

    part: number from 1, and of how many. Raises RecipeError unless one of both is given.
    """
    if (count is None) != bool(only):
        fix = "Say how many there shall be, or which to make"
        raise RecipeError(Problem("--num-images, --only", "give one of them", fix))
    if only:
        return sorted({*only}) if part[0] == 1 else []
    return Indices(count or 0, batch_size, *part)
