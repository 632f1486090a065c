"""Put lesions into a host, in number, size and place as donors have them: output n is a function of
n and the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import attrs
import numpy as np

from medgen import seeds
from medgen.api.tables import DataSettings
from medgen.generation.insertion import cases, lesions, shapes
from medgen.generation.insertion.cases import Case, Files
from medgen.generation.insertion.lesions import Lesion, Library
from medgen.generation.insertion.mask_sources import MaskSource
from medgen.generation.insertion.painter import Painter, grown, learns_nothing
from medgen.generation.insertion.painting import Placed, fits, paint
from medgen.generation.insertion.places import SPREAD, Ground

Array = np.ndarray[Any, np.dtype[Any]]

ATTEMPTS = 16
"""Real lesions that are tried for one that is wanted."""
COMPARED = 4
"""Of those that fit, so many are compared: the one that is most at home in the host is taken."""
WIDEN = 4.0
"""Attempts after which places are drawn twice as far around."""
NO_PLACE, TOO_LARGE = "no_place", "too_large"
"""Why a lesion is not put in: nothing fits around such lesions' places, or what paints has smaller
crops.
"""
HELD = 2
"""Hosts that are kept in memory."""


class Chosen(NamedTuple):
    """A lesion for a host. unlike: as in `places.Found`."""

    lesion: Lesion
    mirrored: bool
    placed: Placed
    unlike: float


@attrs.frozen(eq=False)
class Inserted:
    """A host with new lesions. images: float32 `[channel, x, y, z]`, as in `Case`. changed, new:
    bool `[x, y, z]`, where values count, and the new lesions. lesions: what is noted of each.
    missed: how many have no place, by `NO_PLACE` and `TOO_LARGE`.
    """

    case: Case
    images: Array
    changed: Array
    new: Array
    lesions: tuple[Mapping[str, Any], ...]
    missed: Counter[str]


class Inserter:
    """Puts lesions into hosts.

    made_from: what decides the outputs besides index and seed, for the manifest. masks: where masks
    come from; None: the library's lesions themselves.
    """

    def __init__(
        self,
        hosts: Sequence[Files],
        library: Library,
        painter: Painter,
        data: DataSettings,
        seed: int,
        made_from: Mapping[str, Any],
        masks: MaskSource | None = None,
    ):
        self.hosts, self.library, self.painter = hosts, library, painter
        self.data, self.seed, self.made_from, self.masks = data, seed, made_from, masks
        self._read = lru_cache(HELD)(self._read_host)

    def host(self, index: int) -> Files:
        """The host of an output: all are used equally often, in an order that the seed draws."""
        round_, place = divmod(index, len(self.hosts))
        return self.hosts[int(seeds.permutation(self.seed, round_, len(self.hosts))[place])]

    def make(self, index: int) -> Inserted:
        """Make one output."""
        case = self._read(self.hosts.index(self.host(index)))
        rng = np.random.default_rng(seeds.derive(self.seed, "insert", index))
        chosen, missed = self._chosen(case, index, rng)
        images = case.images.copy()
        changed, new = np.zeros((2, *case.head.shape), bool)
        for number, each in enumerate(chosen):
            weight = paint(
                images,
                case.head,
                case.spacing,
                each.placed,
                self.painter,
                seeds.derive(self.seed, "insert/paint", index, number),
            )
            changed |= weight > 0
            new |= each.placed.mask(new.shape)
        notes = tuple(self._note(case, images, each, new) for each in chosen)
        return Inserted(case, images, changed, new, notes, missed)

    def _read_host(self, number: int) -> Case:
        return cases.read(self.hosts[number], self.data, learns_nothing(self.painter))

    def _chosen(
        self, case: Case, index: int, rng: np.random.Generator
    ) -> tuple[list[Chosen], Counter[str]]:
        """Lesions of other persons for a host, and why others found no place."""
        library = self.library.others(case.files.person)
        ground = Ground(case, library.unlikely, self.painter.margin + max(case.spacing))
        chosen: list[Chosen] = []
        missed = Counter[str]()
        for pool in self._pools(library, ground, index, chosen, rng):
            found = self._choose(pool, ground, rng)
            if isinstance(found, Chosen):
                ground.take(found.placed.mask(case.head.shape))
                chosen.append(found)
            else:
                missed[found] += 1
        return chosen, missed

    def _pools(
        self,
        library: Library,
        ground: Ground,
        index: int,
        chosen: Sequence[Chosen],
        rng: np.random.Generator,
    ) -> Iterator[Sequence[Lesion]]:
        """What one is chosen from for each lesion that is wanted, the largest first; no lesion
        twice in a host.
        """
        sizes = _wanted(library, rng)
        if self.masks is not None:
            yield from self.masks.pools(index, sizes, ground.frame, library)
            return
        for size in sizes:
            yield library.near(size, [each.lesion for each in chosen])

    def _choose(
        self, pool: Sequence[Lesion], ground: Ground, rng: np.random.Generator
    ) -> Chosen | str:
        """Of a few lesions that fit somewhere, the one that is most at home there; or why there is
        none.
        """
        found: list[Chosen] = []
        why = TOO_LARGE
        for attempt in range(ATTEMPTS):
            lesion, mirrored = pool[int(rng.integers(len(pool)))], bool(rng.integers(2))
            moved = shapes.moved(lesion, ground.case.spacing, rng, mirrored)
            if not fits(self.painter, moved.mask, ground.case.spacing):
                continue
            why = NO_PLACE
            centres = ground.free(lesion, moved.mask, mirrored, rng, SPREAD * (1 + attempt / WIDEN))
            if len(centres):
                patch = moved.patch()
                place = ground.best(centres, patch)
                found.append(Chosen(lesion, mirrored, Placed(patch, place.centre), place.unlike))
            if len(found) == COMPARED:
                break
        return min(found, key=lambda each: each.unlike) if found else why

    def _note(self, case: Case, images: Array, chosen: Chosen, new: Array) -> dict[str, Any]:
        """What the manifest says of a lesion. centre: mm, in the scan's own space."""
        mask = chosen.placed.mask(new.shape)
        around = case.head & ~new & ~case.lesion & grown(mask, case.spacing, lesions.RING)
        lesion, affine = chosen.lesion, case.place.affine
        return {
            "donor": lesion.donor,
            "lesion": lesion.number,
            "mirrored": chosen.mirrored,
            "centre": [
                round(float(each), 1)
                for each in affine[:3, :3] @ chosen.placed.centre + affine[:3, 3]
            ],
            "mm3": round(float(np.count_nonzero(mask) * np.prod(case.spacing)), 1),
            "contrast": [round(each, 4) for each in lesions.contrast(images, mask, around)],
            "donor_contrast": [round(each, 4) for each in lesion.contrast],
            "unlike": round(chosen.unlike, 4),
        }


def _wanted(library: Library, rng: np.random.Generator) -> list[float]:
    """Sizes of the lesions to put in, mm3, the largest first: those of one donor, drawn at random."""
    sizes = library.sizes[int(rng.integers(len(library.sizes)))][1]
    return sorted(sizes, reverse=True)
