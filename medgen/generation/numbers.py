"""Draw the numbers that models are given besides masks, such as the position in the head.

They come from the training slices, of which a checkpoint keeps the numbers of each together, so
that position and lesion size go together as in training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medgen import seeds
from medgen.api.numbers import NUMBERS
from medgen.api.values import Mode
from medgen.errors import CheckpointError, Problem, RecipeError

Row = Mapping[str, float]
"""Numbers of a slice by name, each in its unit; see `medgen.api.numbers`."""
Range = tuple[float, float]
EVERYWHERE = (0.0, 1.0)
NEAR = 16
"""Training slices that are most like a mask, of which one is drawn."""
DIGITS = 4
"""Decimals of a number, for the model as in the manifest."""


class Table:
    """Numbers of training slices, one row for each. names: those that the model is given.

    values: by name, `[row]`, all of the same length; besides the names perhaps `lesion_size`.
    """

    def __init__(self, names: Sequence[str], values: Mapping[str, np.ndarray]):
        self.names, self.values = tuple(names), dict(values)

    def __len__(self) -> int:
        return min(map(len, self.values.values()), default=0)

    @property
    def positions(self) -> Range:
        """Return the least and the largest position; everything where none is known."""
        values = self.values.get("position")
        return EVERYWHERE if values is None else (float(values.min()), float(values.max()))

    def between(self, low: float, high: float) -> Table:
        """Return the rows with a position in a range; all where none is known."""
        values = self.values.get("position")
        return self if values is None else self._take((low <= values) & (values <= high))

    def near(self, known: Row) -> Table:
        """Return the `NEAR` rows whose numbers, as models see them, are nearest to known ones."""
        shared = [name for name in known if name in self.values]
        apart = np.zeros(len(self))
        for name in shared:
            here = NUMBERS[name].scale(known[name])
            apart += np.square([NUMBERS[name].scale(each) - here for each in self.values[name]])
        return self._take(np.sort(np.argsort(apart, kind="stable")[:NEAR])) if shared else self

    def drawn(self, seed: int, purpose: str, *index: int) -> dict[str, float]:
        """Draw a row; of it the numbers that the model is given."""
        row = seeds.derive(seed, purpose, *index) % len(self)
        return {name: float(self.values[name][row]) for name in self.names}

    def _take(self, rows: np.ndarray) -> Table:
        return Table(self.names, {name: values[rows] for name, values in self.values.items()})


def table(path: Path, mode: Mode, data: Mapping[str, Any]) -> Table | None:
    """Read the numbers that a checkpoint keeps; None if its mode has none. Raises CheckpointError."""
    if not mode.scalars:
        return None
    try:
        values = {name: _column(name, each) for name, each in data["numbers"].items()}
        [count] = {len(each) for each in values.values()}
        if not count or not {*mode.scalars} <= values.keys():
            raise ValueError(f"expected some of {', '.join(mode.scalars)}")
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        what = f"the numbers of its training slices do not fit ({type(error).__name__}: {error})"
        raise CheckpointError(Problem(path, what, "Use a checkpoint that medgen wrote")) from error
    return Table(mode.scalars, values)


def _column(name: str, kept: Tensor) -> np.ndarray:
    """Read a number of every row. Raises ValueError if one is beyond the scale."""
    values = np.round(kept.double().numpy(), DIGITS)
    if not all(math.isfinite(NUMBERS[name].scale(each)) for each in values.tolist()):
        raise ValueError(f"{name} is not finite")
    return values


def restricted(found: Table, option: str, *ranges: Range) -> Table:
    """Return the rows with a position in all of some ranges. Raises RecipeError if there is none."""
    low, high = max(each[0] for each in ranges), min(each[1] for each in ranges)
    rows = found.between(low, high)
    if not len(rows):
        first, last = found.positions
        what = (
            f"was trained on slices at {first:g}..{last:g} of the head, none at {low:g}..{high:g}"
        )
        raise RecipeError(Problem(option, what, "Give another --position, or another model"))
    return rows


def of_image(found: Table, known: Row, seed: int, index: int, attempt: int) -> dict[str, float]:
    """Draw numbers for an image model: known ones of the pair, the others of a slice like it."""
    drawn = found.near(known).drawn(seed, "image numbers", index, attempt)
    return drawn | {name: value for name, value in known.items() if name in drawn}


def lesion_size(mask: Tensor, cell: float) -> float:
    """Measure masks, `[mask, *space]`, set where > 0, in mm2 of all together; cell: of a pixel."""
    return round(int(torch.count_nonzero(mask > 0)) * cell, DIGITS)


def as_given(rows: Sequence[Row], names: Sequence[str], device: torch.device) -> Tensor | tuple[()]:
    """Return rows as a model sees them, fp32 `[row, number]`; empty if it is given none."""
    if not names:
        return ()
    scaled = [[NUMBERS[name].scale(row[name]) for name in names] for row in rows]
    return torch.tensor(scaled, dtype=torch.float32, device=device)
