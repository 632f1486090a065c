"""Find the nearest training slice of each slice: candidates by profile, then registration."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medgen.evaluation.head_views import Views
from medgen.evaluation.registration import Placement, begin, likeness, refine, turns

COMPONENTS = 96
"""Principal components of the profiles' magnitudes that candidates are chosen by."""
CANDIDATES, TRIED, REFINED = 32, 4, 2
"""Slices kept by magnitude, by the best turn, and by coarse detail; only the last are compared at
full detail.
"""
COARSE_STEPS, FINE_STEPS = 4, 3


class Nearest(NamedTuple):
    """For each slice: row of the nearest reference, correlation of detail with it, and the
    transform onto it.
    """

    row: Tensor
    score: Tensor
    at: Placement


class Finder:
    """Finds the nearest of some references. people: `[n]`, who each reference is of."""

    def __init__(self, references: Views, people: Tensor):
        self.references, self.people = references, people
        magnitudes = references.profile.abs().flatten(1)
        self._mean = magnitudes.mean(0)
        centred = (magnitudes - self._mean).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        keep = slice(-min(COMPONENTS, len(centred)), None)
        self._basis = (vectors[:, keep] / (values[keep] + values[-1] * 1e-3 + 1e-12).sqrt()).float()
        self._signs = self._sign(references)

    def find(self, moving: Views, people: Tensor | None = None) -> Nearest:
        """Look for the nearest reference of at most some hundred slices.

        people: who each slice is of; every slice must have a reference of somebody else.
        """
        rows = self._candidates(moving, people)
        return self._registered(moving, rows)

    def _registered(self, moving: Views, rows: Tensor) -> Nearest:
        turn = turns(moving.profile, self.references.profile[rows])
        tried = turn.score.topk(min(TRIED, rows.shape[1]), 1).indices
        rows, angle, flipped = (
            rows.gather(1, tried),
            turn.angle.gather(1, tried),
            turn.flipped.gather(1, tried),
        )
        each = torch.arange(len(moving))
        coarse = [
            self._coarse(moving, rows[:, n], angle[:, n], flipped[:, n])
            for n in range(rows.shape[1])
        ]
        scores = torch.stack([one.score for one in coarse], 1)
        best = scores.topk(min(REFINED, rows.shape[1]), 1).indices
        fine = []
        for n in range(best.shape[1]):
            matrix = torch.stack([one.at.matrix for one in coarse], 1)[each, best[:, n]]
            offset = torch.stack([one.at.offset for one in coarse], 1)[each, best[:, n]]
            fine.append(self._fine(moving, rows[each, best[:, n]], Placement(matrix, offset)))
        return _best(fine)

    def _coarse(self, moving: Views, rows: Tensor, angle: Tensor, flipped: Tensor) -> Nearest:
        reference = self.references.take(rows)
        at = begin(moving, reference, angle, flipped)
        at = refine(
            moving.coarse.float(), reference.coarse.float(), reference.inside, at, COARSE_STEPS
        )
        return Nearest(rows, likeness(moving, reference, at, "coarse"), at)

    def _fine(self, moving: Views, rows: Tensor, at: Placement) -> Nearest:
        reference = self.references.take(rows)
        at = refine(moving.fine.float(), reference.fine.float(), reference.inside, at, FINE_STEPS)
        return Nearest(rows, likeness(moving, reference, at), at)

    def _sign(self, slices: Views) -> Tensor:
        """Return whitened magnitudes of profiles, of unit norm, equal for turned or flipped slices."""
        return F.normalize((slices.profile.abs().flatten(1) - self._mean) @ self._basis, dim=1)

    def _candidates(self, moving: Views, people: Tensor | None) -> Tensor:
        alike = self._sign(moving) @ self._signs.T
        most = len(self.people)
        if people is not None:
            own = people[:, None] == self.people[None]
            alike[own] = -2.0
            most = int((~own).sum(1).min())
        return alike.topk(min(CANDIDATES, most), 1).indices


def _best(found: list[Nearest]) -> Nearest:
    best = torch.stack([each.score for each in found]).argmax(0)
    each = torch.arange(len(best))
    row, score = (
        torch.stack([getattr(one, name) for one in found])[best, each] for name in ("row", "score")
    )
    matrix = torch.stack([one.at.matrix for one in found])[best, each]
    offset = torch.stack([one.at.offset for one in found])[best, each]
    return Nearest(row, score, Placement(matrix, offset))
