"""Lesions that are masks alone: drawn by a model of masks, or read from a folder of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np
from scipy import ndimage

from medgen.api.tables import DataSettings
from medgen.data.scans import layouts
from medgen.data.scans.consistency import Place, mismatches
from medgen.data.scans.nifti import gate
from medgen.data.store.file_memo import cache_root
from medgen.data.store.preprocess import Channel, binary
from medgen.data.store.store_sources import digests
from medgen.errors import DataError, Problem
from medgen.evaluation.lesion_scores import components
from medgen.generation.folder_masks import settings_for
from medgen.generation.insertion.frame import Frame
from medgen.generation.insertion.lesions import LEAST, Lesion, Library, crosses
from medgen.generation.insertion.parts import covering
from medgen.generation.masks import ModelMasks

Array = np.ndarray[Any, np.dtype[Any]]
Pools = list[list[Lesion]]

PLACES = 8
"""Places of real lesions that are tried for one that is a mask alone."""
DRAWS = 8
"""Masks that are drawn at most until there are as many lesions as are wanted."""


class MaskSource(Protocol):
    """Gives lesions for an output, each as a few that differ in their place. frame: of the host."""

    def pools(self, index: int, sizes: Sequence[float], frame: Frame, library: Library) -> Pools:
        """One pool for each of so many lesions; sizes: mm3, of those that real heads have together."""

    def identity(self) -> Mapping[str, Any]:
        """Return everything that decides the lesions besides index and seed."""


class FolderShapes:
    """Lesions of a folder of mask files or of patients: those of the wanted sizes, where real ones
    of that size lie.
    """

    def __init__(self, folder: Path, data: DataSettings, names: Sequence[str]):
        settings = settings_for(folder, data, names)
        sources = {name: layouts.source(settings, name) for name in names}
        found = layouts.survey(settings, sorted(set(sources.values())))
        if found.faults:
            raise DataError(*found.faults)
        patients = {
            patient.id: [
                Channel.of(patient.files[source], layouts.mask(settings, name))
                for name, source in sources.items()
            ]
            for patient in found.patients
        }
        paths = [mask.path for masks in patients.values() for mask in masks]
        known = digests(dict.fromkeys(paths), cache_root())
        self.digest = hashlib.sha256("".join(known[path] for path in paths).encode()).hexdigest()
        self.lesions = [
            lesion for id, masks in patients.items() for lesion in _read(id, masks, data)
        ]
        if not self.lesions:
            raise DataError(
                Problem(
                    folder, f"has no lesion of at least {LEAST} voxels", "Give masks with lesions"
                )
            )

    def pools(self, index: int, sizes: Sequence[float], frame: Frame, library: Library) -> Pools:
        """Pair shapes of about each size with places of real lesions of about that size."""
        return [
            [
                _like(one, other)
                for one, other in zip(cycle(self._near(size)), library.near(size), strict=False)
            ]
            for size in sizes
        ]

    def identity(self) -> Mapping[str, Any]:
        """A hash of the masks."""
        return {"seg_folder": self.digest}

    def _near(self, size: float) -> list[Lesion]:
        apart = np.abs(np.log([lesion.size for lesion in self.lesions]) - np.log(size))
        return [self.lesions[int(place)] for place in np.argsort(apart, kind="stable")[:PLACES]]


class ModelShapes:
    """Lesions drawn by a model of masks, where they lie in their volume or slice; those of slices
    round along the third axis too.
    """

    def __init__(self, masks: ModelMasks):
        self.masks = masks

    def pools(self, index: int, sizes: Sequence[float], frame: Frame, library: Library) -> Pools:
        """As many lesions as sizes, if so many are drawn; of which size, the model decides."""
        found: Pools = []
        for attempt in range(1, DRAWS + 1):
            drawn = self.masks.again(index, attempt)
            if not drawn.faults[0][-1]:
                masks = np.asarray(drawn.values[0] > 0)
                lesions, count = components(np.asarray(masks.any(0)))
                found += [
                    _in_head(masks & (lesions == n), self.masks.grid.spacing[0], frame, library)
                    for n in range(1, count + 1)
                ]
            if len(found) >= len(sizes):
                break
        return sorted(found[: len(sizes)], key=lambda pool: -pool[0].size)

    def identity(self) -> Mapping[str, Any]:
        """A hash of the model, and its limits."""
        return self.masks.identity()


def _read(id: str, masks: Sequence[Channel], data: DataSettings) -> Iterator[Lesion]:
    """Every lesion of a patient's masks; where it lies in a head is not known."""
    volumes = {
        path: gate.read(path, data.max_voxels, mask=True)
        for path in dict.fromkeys(mask.path for mask in masks)
    }
    (place, *others) = (Place(path, each.data.shape, each.affine) for path, each in volumes.items())
    if wrong := [fault for other in others for fault in mismatches(place, other)]:
        raise DataError(*wrong)
    parts = np.stack([binary(volumes[mask.path].data, mask.labels or ()) for mask in masks])
    lesions, _ = components(np.asarray(parts.any(0)))
    for number, box in enumerate(ndimage.find_objects(lesions), 1):
        mask = lesions[box] == number
        if np.count_nonzero(mask) >= LEAST:
            own = np.stack([part[box] & mask for part in parts])
            yield _alone(id, number, own, volumes[masks[0].path].spacing)


def _in_head(parts: Array, spacing: float, frame: Frame, library: Library) -> list[Lesion]:
    """A lesion of a volume, bool `[part, x, y, z]`, or slice, `[part, x, y]`, whose middle is the middle
    of the head's box; that of a slice is as high as real ones lie.
    """
    part = np.asarray(parts.any(0))
    axes = part.ndim
    offsets = (np.argwhere(part) - (np.array(part.shape) - 1) / 2) * spacing
    x, y, *z = offsets.mean(0)
    box = ndimage.find_objects(part.astype(np.uint8))[0]
    inner = np.stack([each[box] for each in parts])
    lesion = _alone("", 0, inner if z else _all_rounded(inner), (spacing,) * 3)
    up = [(each - frame.height / 2) / frame.length for each in z]
    where = np.array([x / frame.half, 0.5 + y / frame.length, *up])
    beside = sorted(library.lesions, key=lambda other: _apart(other.where[:axes], where))[:PLACES]
    placed = [_like(lesion, other) for other in beside]
    return [
        attrs.evolve(
            each, where=np.array([*where, *each.where[axes:]]), crosses=crosses(offsets[:, 0])
        )
        for each in placed
    ]


def _apart(one: Array, other: Array) -> float:
    """How far two places `[axis]` are apart, on either side of the head."""
    (x, *rest), (mirrored, *others) = one, other
    apart = abs(x) - abs(mirrored)
    for here, there in zip(rest, others, strict=True):
        apart = np.hypot(apart, here - there)
    return float(apart)


def _all_rounded(parts: Array) -> Array:
    """Make the parts of a slice's lesion, bool `[part, x, y]`, as high as wide, `[part, x, y, z]`."""
    high = rounded(np.asarray(parts.any(0)))
    made = np.zeros((len(parts), *high.shape), bool)
    for own, part in zip(made, parts, strict=True):
        if part.any():
            ball = rounded(part)
            spare = (high.shape[2] - ball.shape[2]) // 2
            own[:, :, spare : spare + ball.shape[2]] = ball
    return covering(made, high)


def rounded(plane: Array) -> Array:
    """Make a slice's lesion, bool `[x, y]`, as high as wide, `[x, y, z]`: of a disc a ball.

    A pixel at a distance d from the edge is as high as the ball of the largest distance R is there:
    sqrt(R^2 - (R - d)^2) to either side.
    """
    depth = ndimage.distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1] - 0.5
    most = depth.max()
    half = np.sqrt(np.clip(most**2 - (most - depth) ** 2, 0, None))
    reach = int(np.ceil(most))
    return np.asarray(
        (np.abs(np.arange(-reach, reach + 1)) <= half[:, :, None]) & plane[:, :, None]
    )


def _like(lesion: Lesion, other: Lesion) -> Lesion:
    """A lesion at the place of another."""
    return attrs.evolve(lesion, where=other.where, depth=other.depth, crosses=other.crosses)


def _alone(id: str, number: int, parts: Array, spacing: tuple[float, ...]) -> Lesion:
    """A lesion of which there are masks alone, bool `[part, x, y, z]`."""
    parts = np.pad(parts, ((0, 0), (1, 1), (1, 1), (1, 1)))
    mask = np.asarray(parts.any(0))
    return Lesion(
        donor=id,
        person="",
        number=number,
        images=None,
        mask=mask,
        parts=parts,
        clear=None,
        spacing=spacing,
        size=float(np.count_nonzero(mask) * np.prod(spacing)),
        where=np.zeros(3),
        crosses=False,
        depth=0.0,
        contrast=(),
    )
