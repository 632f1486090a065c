"""The card: every figure on a set of pairs, how it was measured, and a verdict in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from medgen.errors import DataError, Problem, RecipeError
from medgen.evaluation.figures import Figure
from medgen.evaluation.verdict import Verdict

FORMAT = 1
SAME = ("selection", "real", "extractors")
"""Parts of a card without which two cannot be compared."""


@attrs.frozen(kw_only=True)
class Card:
    """What `medgen evaluate` found.

    made: of the pairs: what was read, how many, and of how many there is a control without a mask.
    real: likewise, with persons and a fingerprint. selection: which slices, on which grid, how many
    at most. extractors: hash of each by name. versions: of what the figures depend on.
    """

    verdict: Verdict
    figures: tuple[Figure, ...]
    made: Mapping[str, Any]
    real: Mapping[str, Any]
    selection: Mapping[str, Any]
    extractors: Mapping[str, str]
    seed: int
    draws: int
    versions: Mapping[str, str]

    def by_section(self) -> dict[str, list[Figure]]:
        """Return the figures under their headings, in order."""
        found: dict[str, list[Figure]] = {}
        for figure in self.figures:
            found.setdefault(figure.section, []).append(figure)
        return found

    def to_json(self) -> str:
        """Return JSON that `read` reads; what is not known is null."""
        return json.dumps(_plain({"format": FORMAT, **attrs.asdict(self)}), indent=1)


def read(path: Path) -> Card:
    """Read a card. Raises DataError if the file is none."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain.pop("format") != FORMAT:
            raise DataError(
                Problem(path, "is a card of another version of medgen", "Evaluate the pairs again")
            )
        figures = tuple(Figure(**_numbers(each)) for each in plain.pop("figures"))
        return Card(verdict=Verdict(**_numbers(plain.pop("verdict"))), figures=figures, **plain)
    except OSError as error:
        raise DataError(
            Problem(path, f"cannot be read ({error.strerror})", "Give a card of `medgen evaluate`")
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            Problem(path, "is no card", "Give what `medgen evaluate --output` wrote")
        ) from None


def require_comparable(one: tuple[str, Card], two: tuple[str, Card]) -> None:
    """Raise RecipeError unless two named cards were measured in the same way."""
    differ = []
    for part in SAME:
        a, b = getattr(one[1], part), getattr(two[1], part)
        differ += [f"{part} {key} {a.get(key, 'none')} and {b.get(key, 'none')}" for key in sorted({*a, *b})
                   if a.get(key) != b.get(key)]  # fmt: skip
    if differ:
        what = f"cannot be compared, as they differ in {'; '.join(differ)}"
        raise RecipeError(
            Problem(
                f"{one[0]} and {two[0]}",
                what,
                "Evaluate both with the same data, features and --seed",
            )
        )


def _numbers(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a figure, with NaN where JSON has null."""
    return {key: math.nan if value is None else value for key, value in plain.items()}


def _plain(value: Any) -> Any:
    """Return the same with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
