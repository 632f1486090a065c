"""Slices or volumes with lesions out of a folder of masks, on the grid of a model's images; kept in
the cache by content.

Unlike in the slice store every lesion has the area in mm2 that it has in its file, whatever the
file's voxels are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np

from medgen.api.tables import AXES, DataSettings, image_size
from medgen.data.grid import Grid
from medgen.data.scans import layouts
from medgen.data.scans.consistency import Place, mismatches
from medgen.data.scans.nifti import gate
from medgen.data.scans.nifti.alike import merge_alike
from medgen.data.scans.nifti.gate import Volume
from medgen.data.store import cache_folder, patient_heads, processes
from medgen.data.store.file_memo import cache_root
from medgen.data.store.head import Head
from medgen.data.store.mask_grid import MOST, is_absurd, place
from medgen.data.store.plane import Plane
from medgen.data.store.preprocess import Channel, binary
from medgen.data.store.store_index import UNREADABLE
from medgen.data.store.store_sources import digests, sources
from medgen.errors import DataError, Problem
from medgen.system import files
from medgen.system.console import warn

FORMAT = 1
"""Part of the key: raise it with any change of what is kept."""

Progress = Callable[[int, int], None]


class MaskSlices(NamedTuple):
    """All slices with a lesion, or volumes, patients in the order of `layouts.find`. key: equal for
    equal ones.

    masks: bits, `[slice, mask, px / 8]`. area: px of each mask, `[slice, mask]`. outside: a lesion
    of the slice lies beyond the grid. files: how many masks were read. others: labels that are of
    no mask.
    """

    grid: Grid
    key: str
    masks: np.ndarray
    area: np.ndarray
    outside: np.ndarray
    files: int
    others: dict[int, int]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return float32 `[row, mask, *grid.shape]` at -1 and 1."""
        bits = np.unpackbits(self.masks[rows], axis=-1, count=math.prod(self.grid.shape))
        return bits.reshape(*bits.shape[:2], *self.grid.shape).astype(np.float32) * 2 - 1


class _Job(NamedTuple):
    """A patient's masks, for a worker process."""

    sources: list[Channel]
    settings: DataSettings
    grid: Grid
    head: Head


class _Cut(NamedTuple):
    masks: np.ndarray
    area: np.ndarray
    outside: np.ndarray
    others: list[int]


def open_masks(
    settings: DataSettings, names: Sequence[str], grid: Grid, progress: Progress | None = None
) -> MaskSlices:
    """The masks of the patients to train on. Raises `DataError` with a line per problem, and
    `StorageError`.
    """
    cache, masks = cache_root(), frozenset(names)
    size = grid.shape[:1] if settings.axes == 2 else grid.shape
    settings = attrs.evolve(settings, spacing=grid.spacing[0], image_size=image_size(size))
    patients = [each for each in layouts.find(settings, names, warn) if each.split == "train"]
    wanted = [sources(settings, patient, names, masks) for patient in patients]
    sought = patient_heads.seek(settings, patients, [each[0].path for each in wanted])
    jobs = [
        _Job(each, settings, grid, head)
        for each, head in zip(wanted, patient_heads.find(sought, cache), strict=True)
    ]
    content = digests([source.path for job in jobs for source in job.sources], cache)
    files = [[(content[source.path], source.labels) for source in job.sources] for job in jobs]
    what = [(file, job.head.low, job.head.high) for file, job in zip(files, jobs, strict=True)]
    where = [settings.axis] if settings.axes == 2 else ["volumes"]
    how = [FORMAT, *where, *size, grid.spacing[0], settings.nan, list(names)]
    key = hashlib.sha256(json.dumps([how, what]).encode()).hexdigest()[:32]
    folder = cache / f"masks-{key}"
    return cache_folder.open_or_make(
        folder,
        "the cache of masks",
        lambda: _read(folder, grid, key),
        lambda: _build(folder, jobs, progress),
    )


def _read(folder: Path, grid: Grid, key: str) -> MaskSlices:
    try:
        with np.load(folder / "masks.npz") as arrays:
            found: dict[str, Any] = dict(arrays)
    except UNREADABLE as error:
        raise cache_folder.Damaged(f"masks.npz: {error}") from None
    others = dict(zip(*found.pop("others").tolist(), strict=True))
    return MaskSlices(grid, key, files=int(found.pop("files")), others=others, **found)


def _build(folder: Path, jobs: Sequence[_Job], progress: Progress | None) -> None:
    faults: list[Problem] = []
    cuts: list[_Cut] = []
    paths = {source.path for job in jobs for source in job.sources}
    with processes.results(
        _cut, jobs, processes.count_workers(paths, len(jobs), jobs[0].settings.workers)
    ) as results:
        for done, result in enumerate(results, 1):
            if isinstance(result, _Cut):
                cuts.append(result)
            else:
                faults += result
            if progress:
                progress(done, len(jobs))
    if faults:
        raise DataError(*merge_alike(faults, len(jobs)))
    counts = Counter(label for each in cuts for label in each.others)
    others = np.array([[*counts], [*counts.values()]], np.int64).reshape(2, -1)
    masks, area, outside = (np.concatenate(each) for each in list(zip(*cuts, strict=True))[:3])
    with cache_folder.building(folder) as made, (made / "masks.npz").open("wb") as file:
        np.savez(file, masks=masks, area=area, outside=outside, others=others, files=len(paths))
        files.flush(file)


# In worker processes


def _cut(job: _Job) -> _Cut | list[Problem]:
    """A patient's slices with lesions, or its volume, or everything that is wrong with its files."""
    faults: list[Problem] = []
    volumes: dict[Path, Volume] = {}
    for path in dict.fromkeys(source.path for source in job.sources):
        try:
            volumes[path] = gate.read(
                path, job.settings.max_voxels, nan=job.settings.nan, mask=True
            )
            faults += _misfits(path, volumes[path], job)
        except DataError as error:
            faults += error.problems
    places = [Place(path, volume.data.shape, volume.affine) for path, volume in volumes.items()]
    faults += [fault for other in places[1:] for fault in mismatches(places[0], other)]
    return faults or _slices(job, volumes)


def _misfits(path: Path, volume: Volume, job: _Job) -> list[Problem]:
    """What keeps a volume, or its slices, from being masks of the images: another axis, or a size
    that no head has.
    """
    shape, spacing, sides = volume.data.shape, volume.spacing, job.settings.within
    thin = [AXES[each] for each in sides if shape[each] == 1]
    wanted, fix = (
        (f"{job.grid.axis} ones", f"Give {job.grid.axis} masks, or volumes")
        if job.grid.axis
        else ("volumes", "Give masks that are volumes")
    )
    if thin:
        what = f"is a single {thin[0]} slice, and the image model makes {wanted}"
        return [Problem(path, what, fix)]
    if is_absurd([shape[each] for each in sides], [spacing[each] for each in sides], job.grid):
        across = " x ".join(f"{shape[each] * spacing[each]:.4g}" for each in sides)
        what = f"has {job.settings.noun} of {across} mm, the image model's are {job.grid}, more than {MOST:g} times apart"
        return [Problem(path, what, "Check the unit of its voxels")]
    return []


def _slices(job: _Job, volumes: dict[Path, Volume]) -> _Cut:
    volume = volumes[job.sources[0].path]
    plane = Plane.of(volume, job.settings, job.head)  # as training slices have it
    spacing, middle = zip(*plane.sides, strict=True)
    inside = [
        plane.samples(binary(volumes[each.path].data, each.labels or ())) for each in job.sources
    ]
    each_slice = np.stack(inside, axis=1)
    shown = each_slice[each_slice.any(axis=tuple(range(1, each_slice.ndim)))]
    placed = [place(masks, spacing, job.grid, middle) for masks in shown]
    pixels = np.array([each.masks for each in placed], bool).reshape(
        len(placed), len(inside), math.prod(job.grid.shape)
    )
    outside = np.array([each.outside for each in placed], bool)
    return _Cut(
        np.packbits(pixels, axis=-1),
        np.count_nonzero(pixels, axis=-1),
        outside,
        _others(job, volumes),
    )


def _others(job: _Job, volumes: dict[Path, Volume]) -> list[int]:
    """Labels in the files that no mask is made of."""
    found: set[int] = set()
    for path, volume in volumes.items():
        wanted = [each.labels or () for each in job.sources if each.path == path]
        held = {int(label) for label in np.unique(np.rint(volume.data))} - {0}
        found |= held.difference(*wanted) if all(wanted) else set()
    return sorted(found)
