"""A figure of a card: a value with its interval, beside the same between real patients."""

from __future__ import annotations

from typing import Literal

import attrs
import numpy as np

Better = Literal["low", "high", "near"]


@attrs.frozen
class Figure:
    """One line of a card. NaN stands for what cannot be told.

    section: heading it stands under. name: what is measured. value: for the generated, with its 95
    % interval low..high. reference: the same between real images of disjoint sets of persons, with
    its own. unit: such as "mm"; empty for none. better: whether a generator should be low, high, or
    near the reference.
    """

    section: str
    name: str
    value: float
    low: float
    high: float
    reference: float
    reference_low: float
    reference_high: float
    unit: str = ""
    better: Better = "near"

    @classmethod
    def of(
        cls,
        section: str,
        name: str,
        made: np.ndarray,
        real: np.ndarray,
        unit: str = "",
        better: Better = "near",
    ) -> Figure:
        """Return a figure of value, low and high `[3]` of the generated, and of real against real."""
        return cls(section, name, *map(float, made), *map(float, real), unit, better)  # type: ignore[call-arg, arg-type]

    @property
    def overlaps(self) -> bool:
        """Return whether the two intervals have a value in common; False if one is not known."""
        return self.low <= self.reference_high and self.reference_low <= self.high

    @property
    def as_good(self) -> bool:
        """Return whether the data do not tell the generated from real ones on this line: equal, or
        beyond in its favour.
        """
        if self.better == "low":
            return self.low <= self.reference_high
        if self.better == "high":
            return self.high >= self.reference_low
        return self.overlaps
