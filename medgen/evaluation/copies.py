"""Copies of training data among pairs: whole slices or volumes, and lesions in other heads.

A slice is compared with its nearest training slice, registered, by the correlation of detail inside
the head, and a volume by its slices; a lesion with the most alike training lesion. A copy is what is
more alike than different persons are, for its size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from medgen.errors import DataError, Problem
from medgen.evaluation import pair_files
from medgen.evaluation.bootstrap import interval
from medgen.evaluation.copy_limit import Held, limit
from medgen.evaluation.lesion_patches import Patches, most_alike, patches
from medgen.evaluation.sample_search import BLOCK, search
from medgen.evaluation.samples import Samples
from medgen.evaluation.threads import Work, threads

Array = np.ndarray[Any, np.dtype[Any]]

FORMAT = 2
"""Part of what identifies an audit: raise it with any change of what is found."""
CEILING, LESION_CEILING = 0.95, 0.99
"""Correlations beyond which a slice or a lesion is a copy, however alike persons are. Resampled
copies have more.
"""
CALIBRATION = 2000
"""Training samples that the limits are taken from, at most."""


@attrs.frozen
class Verdict:
    """What a pair is most like. row, lesion_row: of the training samples, -1: none. alike: -1 to 1,
    with its limit. noun: what a pair is.
    """

    row: int
    alike: float
    limit: float
    lesion_row: int = -1
    lesion_alike: float = -1.0
    lesion_limit: float = 1.0
    noun: str = "slice"

    @property
    def distance(self) -> float:
        """Return 1 - correlation to the nearest training sample."""
        return 1 - self.alike

    @property
    def why(self) -> str:
        """Return `slice`, `volume` or `lesion` for a copy, nothing for a new pair."""
        if self.alike > self.limit:
            return self.noun
        return "lesion" if self.lesion_alike > self.lesion_limit else ""

    @property
    def excess(self) -> float:
        """Return how far a copy is beyond its limits, as a share of what is left to 1."""
        slices = (self.alike - self.limit) / (1 - self.limit)
        return max(
            slices, (self.lesion_alike - self.lesion_limit) / max(1 - self.lesion_limit, 1e-6)
        )


class Judge:
    """Training slices or volumes, and how alike different persons among them are."""

    def __init__(self, training: Samples, advance: Callable[[int], None] = lambda _: None):
        self.training = training
        self.key = identify(training)
        self._block = BLOCK[training.axes]
        with threads() as work:
            starts = range(0, len(training), self._block)
            self.search = search(training, work)
            self.lesions = _joined([*work(self._patches, starts)])
            self._persons = self._held(work, advance)
        self.limit = limit(self._persons, CEILING)
        self.lesion_limit = limit(self._held_lesions(), LESION_CEILING)

    def judge(self, images: Array, masks: Array) -> list[Verdict]:
        """Compare some images `[n, channel, *space]` and their lesions, bool `[n, *space]`."""
        found = self.search.find(images)
        limits = self.limit.at(found.area)
        each = zip(found.row.tolist(), found.score.tolist(), limits.tolist(), strict=True)
        verdicts = [Verdict(*one, noun=self.training.noun) for one in each]
        mine = patches(images, masks)
        numbers, scores = most_alike(mine, self.lesions)
        for place, number, score, most in zip(
            mine.row, numbers, scores, self.lesion_limit.at(mine.area), strict=True
        ):
            verdict = verdicts[place]
            if score - most > verdict.lesion_alike - verdict.lesion_limit:
                row = int(self.lesions.row[number]) if len(self.lesions.row) else -1
                named = {
                    "lesion_row": row,
                    "lesion_alike": float(score),
                    "lesion_limit": float(most),
                }
                verdicts[place] = attrs.evolve(verdict, **named)
        return verdicts

    def judge_pairs(
        self,
        folders: Sequence[Path],
        names: Sequence[str],
        advance: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Verdict]:
        """Compare the pairs in some folders, all with files of these names, in their order."""

        def one(start: int) -> list[Verdict]:
            block = pair_files.read(folders[start : start + self._block], names)
            self._require_like(block)
            return self.judge(block.images, block.masks)

        with threads() as work:
            for verdicts in work(one, range(0, len(folders), self._block)):
                advance(len(verdicts))
                yield from verdicts

    def false_alarms(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Return the expected share of new samples called copies, with its 95 % interval; or NaN."""
        if not self.limit.calibrated:
            return np.nan, np.nan, np.nan
        alarms, people = self.limit.alarms, self.limit.people
        low, high = interval(lambda rows: float(alarms[rows].mean()), people, 500, rng)
        return float(alarms.mean()), low, high

    def between_persons(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Return `median_distance` of training samples to those of other persons."""
        return median_distance(1 - self._persons.score, self._persons.people, rng)

    def _held(self, work: Work, advance: Callable[[int], None]) -> Held:
        """Return how near each person's samples come to the others'."""
        people, size = self.training.people, self._block
        if len(np.unique(people)) < 2:
            return Held(np.zeros(0), np.zeros(0), np.zeros(0))
        rows = np.unique(np.linspace(0, len(people) - 1, min(CALIBRATION, len(people))).astype(int))
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        scores, areas = [], []
        for found in work(self.search.among, parts):
            scores.append(found.score)
            areas.append(found.area)
            advance(len(found.score))
        return Held(np.concatenate(scores), np.concatenate(areas), people[rows])

    def _patches(self, start: int) -> Patches:
        rows = slice(start, start + self._block)
        found = patches(self.training.images[rows], self.training.masks[rows])
        return found._replace(row=found.row + start)

    def _held_lesions(self) -> Held:
        people = self.training.people[self.lesions.row]
        if len(np.unique(people)) < 2:
            return Held(np.zeros(0), np.zeros(0), np.zeros(0))
        _, score = most_alike(
            self.lesions, self.lesions, lambda rows: people[rows][:, None] == people[None]
        )
        return Held(score, self.lesions.area.astype(float), people)

    def _require_like(self, block: pair_files.Block) -> None:
        """Raise DataError for pairs of another grid than the training samples were brought to."""
        wanted = self.training
        if block.channels != wanted.channels or not block.grid.matches(wanted.grid, 1e-3):
            found, expected = (
                f"{', '.join(each.channels)}, {each.grid.described}" for each in (block, wanted)
            )
            what = f"these pairs are {found}; those before are {expected}"
            raise DataError(Problem("", what, "Audit the pairs of one model at a time"))


def median_distance(
    distance: Array, people: Array, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return the median distance to the nearest sample, with its 95 % interval; NaN for nobody."""
    if not len(distance):
        return np.nan, np.nan, np.nan
    low, high = interval(lambda rows: float(np.median(distance[rows])), people, 500, rng)
    return float(np.median(distance)), low, high


def identify(training: Samples) -> str:
    """Return what an audit depends on: the training samples and how they are compared."""
    digest = hashlib.sha256(
        f"{FORMAT} {training.images.shape} {training.grid.spacing[0]:.6g}".encode()
    )
    digest.update(np.ascontiguousarray(training.images[:: max(1, len(training) // 64)]).tobytes())
    digest.update(training.people.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def _joined(parts: Sequence[Patches]) -> Patches:
    values, area, row = zip(*parts, strict=True)
    return Patches(torch.cat(values), np.concatenate(area), np.concatenate(row))
