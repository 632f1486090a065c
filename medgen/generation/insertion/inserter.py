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
from medgen.api.numbers import RING
from medgen.api.tables import DataSettings
from medgen.data.store.crop_targets import grown
from medgen.generation.generator import NUMBERS
from medgen.generation.insertion import cases, lesions, shapes
from medgen.generation.insertion.cases import Case, Files
from medgen.generation.insertion.lesions import Lesion, Library
from medgen.generation.insertion.mask_sources import MaskSource
from medgen.generation.insertion.painter import Numbers, Painter, learns_nothing
from medgen.generation.insertion.painting import Placed, fits, paint
from medgen.generation.insertion.places import SPREAD, Ground

Array = np.ndarray[Any, np.dtype[Any]]

ATTEMPTS = 16
"""Real lesions that are tried for one that is wanted; half of them at each smaller scale, as far
around as the later half.
"""
SCALES = (1.0, 0.8, 0.64, 0.5)
"""Of the diameter of lesions, one after the other until one fits. Half of it is an eighth of the
volume; of a smaller copy of a lesion the rim and the core would be thinner than those of real ones.
"""
COMPARED = 4
"""Lesions that fit and are compared. The one is taken whose best place differs least, as a share of what
its places differ on average: without that, bright lesions, whose surroundings are bright too, were taken less often.
"""
WIDEN = 4.0
"""Attempts after which places are drawn twice as far around."""
NO_PLACE, TOO_LARGE = "no_place", "too_large"
"""Why a lesion is not put in: nothing fits around such lesions' places, or what paints has smaller
crops.
"""
HELD = 2
"""Hosts that are kept in memory."""


class Chosen(NamedTuple):
    """A lesion for a host. scale: of its diameter. unlike, usual: see `places.Found`. wanted: see
    `Wanted`.
    """

    lesion: Lesion
    mirrored: bool
    scale: float
    placed: Placed
    unlike: float
    usual: float
    wanted: float | None = None


class Wanted(NamedTuple):
    """What one lesion of a host is chosen from: real lesions alike in size, or where none of them
    fits, smaller ones. size: mm3 of the real lesion that it stands for; None: it stands for none.
    """

    pool: Sequence[Lesion]
    smaller: Sequence[Lesion] = ()
    size: float | None = None

    def trials(self) -> Iterator[tuple[Sequence[Lesion], float]]:
        """Yield what to try, and its scale, in order."""
        yield from ((self.pool, scale) for scale in SCALES)
        if self.smaller:
            yield self.smaller, 1.0


@attrs.frozen(eq=False)
class Inserted:
    """A host with new lesions. images: float32 `[channel, x, y, z]`, as in `Case`. changed, new:
    bool `[x, y, z]`, where values count, and the new lesions. masks: these by mask. lesions: what is noted of each.
    missed: how many have no place, by `NO_PLACE` and `TOO_LARGE`.
    """

    case: Case
    images: Array
    changed: Array
    new: Array
    masks: Mapping[str, Array]
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
        parts = np.zeros((len(self.library.masks), *new.shape), bool)
        drawn = list[Numbers]()
        for number, each in enumerate(chosen):
            weight, numbers = paint(
                images,
                case.head,
                case.spacing,
                each.placed,
                self.painter,
                seeds.derive(self.seed, "insert/paint", index, number),
            )
            drawn.append(numbers)
            changed |= weight > 0
            new |= each.placed.mask(new.shape)
            for whole, part in zip(parts, each.placed.parts, strict=True):
                whole[tuple(each.placed.voxels[part].T)] = True
        notes = tuple(
            self._note(case, images, each, new) | ({NUMBERS: dict(numbers)} if numbers else {})
            for each, numbers in zip(chosen, drawn, strict=True)
        )
        masks = dict(zip(self.library.masks, parts, strict=True))
        return Inserted(case, images, changed, new, masks, notes, missed)

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
        for wanted in self._wanted(library, ground, index, chosen, rng):
            found = self._choose(wanted, ground, rng)
            if isinstance(found, Chosen):
                ground.take(found.placed.mask(case.head.shape))
                chosen.append(found)
            else:
                missed[found] += 1
        return chosen, missed

    def _wanted(
        self,
        library: Library,
        ground: Ground,
        index: int,
        chosen: Sequence[Chosen],
        rng: np.random.Generator,
    ) -> Iterator[Wanted]:
        """Yield what each lesion is chosen from, the largest first; no lesion twice in a host."""
        sizes = _sizes(library, rng)
        if self.masks is not None:
            yield from map(Wanted, self.masks.pools(index, sizes, ground.frame, library))
            return
        for size in sizes:
            taken = [each.lesion for each in chosen]
            yield Wanted(library.near(size, taken), library.below(size, taken), size)

    def _choose(self, wanted: Wanted, ground: Ground, rng: np.random.Generator) -> Chosen | str:
        """Choose a lesion, or return why there is none."""
        why = TOO_LARGE
        for pool, scale in wanted.trials():
            found = self._fitting(pool, scale, ground, rng)
            if isinstance(found, Chosen):
                return found._replace(wanted=wanted.size)
            why = found if found != TOO_LARGE else why
        return why

    def _fitting(
        self, pool: Sequence[Lesion], scale: float, ground: Ground, rng: np.random.Generator
    ) -> Chosen | str:
        """Return the lesion, of a few that fit, most at home in its place; or why there is none."""
        found: list[Chosen] = []
        why = TOO_LARGE
        for attempt in range(0 if scale == 1 else ATTEMPTS // 2, ATTEMPTS):
            lesion, mirrored = pool[int(rng.integers(len(pool)))], bool(rng.integers(2))
            moved = shapes.moved(lesion, ground.case.spacing, rng, mirrored, scale)
            if not fits(self.painter, moved.mask, ground.case.spacing):
                continue
            why = NO_PLACE
            centres = ground.free(lesion, moved.mask, mirrored, rng, SPREAD * (1 + attempt / WIDEN))
            if len(centres):
                patch = moved.patch()
                place = ground.best(centres, patch)
                placed = Placed(patch, place.centre)
                found.append(Chosen(lesion, mirrored, scale, placed, place.unlike, place.usual))
            if len(found) == COMPARED:
                break
        return min(found, key=lambda each: each.unlike / each.usual) if found else why

    def _note(self, case: Case, images: Array, chosen: Chosen, new: Array) -> dict[str, Any]:
        """Note a lesion for the manifest. scale: of the donor's, in diameter. wanted: mm3 of the
        lesion that it stands for. centre: mm, in the scan's own space.
        """
        mask = chosen.placed.mask(new.shape)
        around = case.head & ~new & ~case.lesion & grown(mask, case.spacing, RING)
        lesion, affine = chosen.lesion, case.place.affine
        return {
            "donor": lesion.donor,
            "person": lesion.person,
            "lesion": lesion.number,
            "mirrored": chosen.mirrored,
            "scale": chosen.scale,
            **({} if chosen.wanted is None else {"wanted": round(chosen.wanted, 1)}),
            "centre": [
                round(float(each), 1)
                for each in affine[:3, :3] @ chosen.placed.centre + affine[:3, 3]
            ],
            "mm3": round(float(np.count_nonzero(mask) * np.prod(case.spacing)), 1),
            "contrast": [round(each, 4) for each in lesions.contrast(images, mask, around)],
            "donor_contrast": [round(each, 4) for each in lesion.contrast],
            "unlike": round(chosen.unlike, 4),
        }


def _sizes(library: Library, rng: np.random.Generator) -> list[float]:
    """Draw sizes of the lesions to put in, mm3, the largest first: those of one donor, drawn at random."""
    sizes = library.sizes[int(rng.integers(len(library.sizes)))][1]
    return sorted(sizes, reverse=True)
