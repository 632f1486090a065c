"""Real lesions with their surroundings, and their number, size and place in their heads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import attrs
import numpy as np
from scipy import ndimage

from medgen.api.numbers import RING
from medgen.api.tables import DataSettings
from medgen.data.store import processes
from medgen.errors import DataError, Problem
from medgen.evaluation.lesion_scores import components
from medgen.generation.insertion import cases
from medgen.generation.insertion.cases import Case, Files
from medgen.generation.insertion.frame import Frame, depths

Array = np.ndarray[Any, np.dtype[Any]]

LEAST = 3
"""Voxels below which a part of a mask is a speck, of which nothing can be said."""
AROUND = 14.0
"""mm around a lesion that are cut out with it: the edge, what it is compared by, and room to turn
it.
"""
MIDLINE = 1.5
"""mm on either side of the midplane up to which a lesion does not lie across it."""
ALIKE = 1.5
"""Times that a lesion is larger than another up to which one stands for the other."""
SMALLER = 16
"""Lesions from which one is chosen where none of a wanted size fits: the next smaller ones."""
BINS = 24
"""Of the histogram of surroundings, from 0 to 1; brighter values are in the last."""


@attrs.frozen(eq=False)
class Lesion:
    """A connected region of a patient's masks together.

    images: float32 `[channel, *crop]`, as in `Case`. mask: bool `[*crop]`. parts: bool `[part, *crop]`,
    what of it is in each of the masks. clear: bool `[*crop]`, head and of no other lesion. images and
    clear are None where there is a mask alone. spacing: mm along each axis.
    size: mm3. where: its centre in its head, see `Frame.place`. crosses: it lies across the
    midplane. depth: mm of its shallowest voxels below the head's surface. donor, number: of which
    patient, and which of the patient's lesions, from 1. contrast: `[channel]`, mean within less
    that of its surroundings.
    """

    donor: str
    person: str
    number: int
    images: Array | None
    mask: Array
    parts: Array
    clear: Array | None
    spacing: tuple[float, ...]
    size: float
    where: Array
    crosses: bool
    depth: float
    contrast: tuple[float, ...]


class Donor(NamedTuple):
    """A patient's lesions. surroundings: `[channel, bin]`, histogram around them, sums to 1."""

    files: Files
    lesions: list[Lesion]
    surroundings: Array


class Job(NamedTuple):
    """A patient to read, for a worker process; the arguments of `cases.read`."""

    files: Files
    data: DataSettings
    tissue: bool


@attrs.frozen(eq=False)
class Library:
    """All donors' lesions. masks: names of their parts. lesions: ascending by size. sizes: mm3 of each donor's, by person.

    unlikely: `[channel, bin]`, minus the logarithm of how often surroundings have an intensity.
    """

    masks: tuple[str, ...]
    lesions: tuple[Lesion, ...]
    sizes: tuple[tuple[str, tuple[float, ...]], ...]
    unlikely: Array

    def others(self, person: str) -> Library:
        """Without those of one person. Raises DataError if none are left."""
        kept = tuple(each for each in self.lesions if each.person != person)
        if not kept:
            what = f"there are no lesions but those of {person} itself"
            raise DataError(Problem("--donors", what, "Add patients with lesions"))
        return attrs.evolve(
            self, lesions=kept, sizes=tuple(each for each in self.sizes if each[0] != person)
        )

    def near(self, size: float, without: Collection[Lesion] = ()) -> list[Lesion]:
        """Lesions of about `size` mm3, or the one next in size, ascending by size.

        without: those that are taken; lesions are taken again where there is no other.
        """
        left = [each for each in self.lesions if each not in without] or self.lesions
        apart = np.abs(np.log([lesion.size for lesion in left]) - np.log(size))
        return [
            left[int(place)] for place in np.flatnonzero(apart <= max(np.log(ALIKE), apart.min()))
        ]

    def below(self, size: float, without: Collection[Lesion] = ()) -> list[Lesion]:
        """Return lesions that are too small to stand for `size` mm3, the largest SMALLER of them,
        but for those that are taken.
        """
        small = [each for each in self.lesions if each.size * ALIKE < size and each not in without]
        return small[-SMALLER:]


def collect(
    found: Sequence[Files], data: DataSettings, advance: Callable[[int], None], tissue: bool = False
) -> Library:
    """Read all donors, by several processes, `tissue` as in `cases.read`. Raises DataError if none has a lesion."""
    jobs = [Job(files, data, tissue) for files in found]
    workers = processes.count_workers(
        (path for files in found for path in files.paths), len(jobs), data.workers
    )
    donors = []
    with processes.results(read, jobs, workers) as results:
        for donor in results:
            donors.append(donor)
            advance(1)
    lesions = sorted(
        (each for donor in donors for each in donor.lesions), key=lambda lesion: lesion.size
    )
    if not lesions:
        what = f"none of its {len(found)} patients has a lesion of at least {LEAST} voxels"
        raise DataError(Problem(data.root, what, "Give --donors a dataset with masks of lesions"))
    sizes = [
        (each.files.person, tuple(lesion.size for lesion in each.lesions))
        for each in donors
        if each.lesions
    ]
    share = np.mean([each.surroundings for each in donors if each.lesions], 0)
    unlikely = -np.log(share + 1 / share.shape[1] ** 2)
    return Library(tuple(found[0].masks), tuple(lesions), tuple(sizes), unlikely)


def read(job: Job) -> Donor:
    """Read one donor."""
    case = cases.read(*job)
    lesions = list(lesions_of(case))
    ring = (
        ndimage.distance_transform_edt(~case.lesion, case.spacing)
        if case.lesion.any()
        else np.zeros(0)
    )
    around = case.head & (ring > 0) & (ring <= RING) if case.lesion.any() else case.lesion
    return Donor(job.files, lesions, np.stack([histogram(image[around]) for image in case.images]))


def count(mask: Array) -> int:
    """How many lesions a mask has, without specks."""
    return int(np.count_nonzero(np.bincount(components(mask)[0].ravel())[1:] >= LEAST))


def lesions_of(case: Case) -> Iterator[Lesion]:
    """Cut out every lesion of a patient."""
    parts, _ = components(case.lesion)
    counts = np.bincount(parts.ravel())
    frame = Frame.of(case.head, case.spacing)
    depth = depths(case.head, case.spacing)
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        if counts[number] >= LEAST:
            yield _cut(case, parts, number, box, frame, depth)


def _cut(
    case: Case, parts: Array, number: int, box: tuple[slice, ...], frame: Frame, depth: Array
) -> Lesion:
    reach = [int(np.ceil(AROUND / mm)) for mm in case.spacing]
    wide = tuple(
        slice(max(0, part.start - by), min(side, part.stop + by))
        for part, by, side in zip(box, reach, parts.shape, strict=True)
    )
    mask = parts[wide] == number
    voxels = np.argwhere(mask) + [part.start for part in wide]
    images = np.stack([image[wide] for image in case.images])
    clear = case.head[wide] & ((parts[wide] == 0) | mask)
    around = clear & ~mask & (ndimage.distance_transform_edt(~mask, case.spacing) <= RING)
    return Lesion(
        donor=case.files.id,
        person=case.files.person,
        number=number,
        images=images,
        mask=mask,
        parts=np.stack([each[wide] & mask for each in case.masks.values()]),
        clear=clear,
        spacing=case.spacing,
        size=len(voxels) * float(np.prod(case.spacing)),
        where=frame.place(voxels.mean(0)[None])[0],
        crosses=crosses(frame.side(voxels)),
        depth=float(np.quantile(depth[tuple(voxels.T)], 0.02)),
        contrast=contrast(images, mask, around),
    )


def crosses(side: Array) -> bool:
    """Whether voxels, by their mm to the right of the midplane, lie across it."""
    return bool(side.min() < -MIDLINE and side.max() > MIDLINE)


def contrast(images: Array, mask: Array, around: Array) -> tuple[float, ...]:
    """Mean within a lesion less that of its surroundings, `[channel]`; NaN without surroundings."""
    if not around.any():
        return tuple(float("nan") for _ in images)
    return tuple(float(image[mask].mean() - image[around].mean()) for image in images)


def histogram(values: Array) -> Array:
    """Shares of intensities, `[BINS]`; zeros without values."""
    counts = np.bincount(bins(values), minlength=BINS)
    return np.asarray(counts / max(1, len(values)))


def bins(values: Array) -> Array:
    """The bin of each intensity."""
    return np.asarray(np.clip(values * BINS, 0, BINS - 1).astype(np.int64))
