"""Draw what an image model is given for each pair besides its mask: numbers, and an anatomy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from medgen.generation.anatomy import Anatomy
from medgen.generation.masks import Masks
from medgen.generation.numbers import Row, Table, lesion_size, of_image


class Given(NamedTuple):
    """What the image model is given for a pair. numbers: of the model. known: these and those of the
    mask. anatomy: a row of the anatomies; None without. holds: its lesion lies in the anatomy, as far as
    that matters.
    """

    numbers: dict[str, float]
    known: Row
    anatomy: int | None
    holds: bool = True


class Giver:
    """numbers: of the model's training slices; None if it is given none. cell: mm2, or mm3, of a point
    of its grid. inside: lesions have to lie inside the anatomy, wherever that can be.
    """

    def __init__(
        self,
        numbers: Table | None,
        anatomy: Anatomy | None,
        seed: int,
        cell: float,
        inside: bool = False,
    ):
        self.numbers, self.anatomy, self.seed, self.cell = numbers, anatomy, seed, cell
        self.inside = inside

    def drawn(self, index: int, masks: Masks | None, place: int, attempt: int = 1) -> Given:
        """Draw what fits the mask of a pair, at `place` in its block; each attempt draws anew."""
        of_mask = dict(masks.known(place)) if masks is not None else {}
        numbers: dict[str, float] = {}
        if self.numbers is not None:
            known = dict(of_mask)
            if masks is not None:
                known["lesion_size"] = lesion_size(masks.values[place], self.cell)
            numbers = of_image(self.numbers, known, self.seed, index, attempt)
        every = numbers | of_mask
        if self.anatomy is None:
            return Given(numbers, every, None)
        lesion = (masks.values[place] > 0).any(0).numpy() if masks and self.inside else None
        return Given(numbers, every, *self.anatomy.drawn(index, every, attempt, lesion))

    def condition(self, given: Sequence[Given], masks: Tensor, names: Sequence[str]) -> Tensor:
        """Return the images that the model is given, `[batch, channel, *space]`. masks: of `names`."""
        if self.anatomy is None:
            return masks
        rows = [each.anatomy for each in given if each.anatomy is not None]
        return self.anatomy.joined(rows, masks, names)

    def named(self, given: Given) -> Mapping[str, Any]:
        """Return what the manifest says of a pair's anatomy; nothing without."""
        if self.anatomy is None or given.anatomy is None:
            return {}
        return self.anatomy.named(given.anatomy)
