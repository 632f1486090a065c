"""KID of generated sets against the same real slices, whose features are computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np

from medgen.api.interfaces import Extractor
from medgen.evaluation.bootstrap import People, intervals
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.distances import Kernels
from medgen.evaluation.samples import Samples


@attrs.frozen(eq=False)
class Side:
    """A set of real slices. extractor: fitted on others. features: `[n, d]`. people: int64 `[n]`."""

    extractor: Extractor
    features: np.ndarray
    people: np.ndarray


def sides_of(
    extractor: Extractor, teach: Samples, real: Sequence[Samples], seed: int
) -> list[Side]:
    """Fit an extractor on some persons, and return the features of others, a side for each set."""
    extractor.fit(teach.images, teach.people, teach.position, seed)
    return [Side(extractor, extractor(each.images), each.people) for each in real]


@attrs.frozen(eq=False)
class Yardstick:
    """Real slices, in one or several sets; figures are means over the sets."""

    sides: Sequence[Side]

    @classmethod
    def of(cls, comparison: Comparison, name: str, build: Callable[[], Extractor]) -> Yardstick:
        """Return the sets that a card compares pairs with, in the features of that name."""
        sides: list[Side] = []
        for number, fold in enumerate(comparison.folds):
            seed = comparison.number(f"features/{name}", number)
            sides += sides_of(build(), fold.heads, (fold.one, fold.two), seed)
        return cls(sides)

    def kid(self, made: Samples) -> float:
        """Return the KID of generated samples; NaN where a set has no two persons."""
        return float(np.mean([kernels.kid() for kernels in self._kernels(made)]))

    def interval(self, made: Samples, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Return `[3]`: KID, and the ends of its 95 % interval over persons, real and generated."""
        kernels = self._kernels(made)

        def statistic(rows: np.ndarray, *real: np.ndarray) -> np.ndarray:
            weight = np.bincount(rows, minlength=len(made))
            drawn = [
                np.bincount(each, minlength=len(side.people))
                for side, each in zip(self.sides, real, strict=True)
            ]
            found = [each.kid(own, weight) for each, own in zip(kernels, drawn, strict=True)]
            known = [value for value in found if not np.isnan(value)]
            return np.array([np.mean(known) if known else np.nan])

        people: list[People] = [made.people, [side.people for side in self.sides]]
        return intervals(statistic, people, draws, rng)[:, 0]

    def _kernels(self, made: Samples) -> list[Kernels]:
        features = {id(side.extractor): side.extractor for side in self.sides}
        found = {key: extractor(made.images) for key, extractor in features.items()}
        return [
            Kernels.of(side.features, found[id(side.extractor)], side.people, made.people)
            for side in self.sides
        ]
