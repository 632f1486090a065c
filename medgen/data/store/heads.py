"""Where each patient's head is, from one scan of the patient that every mode looks at, whatever it reads itself.

So a generator of masks and one of images that are trained on the same folder have the same scale and the same places.
What takes long to import is imported only where a scan is read.
"""

from __future__ import annotations

import base64
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medgen.api.tables import DataSettings
from medgen.data.scans import layouts
from medgen.data.scans.consistency import Place, mismatches
from medgen.data.scans.layouts import SPELLINGS, Patient
from medgen.data.scans.nifti import gate, voxels
from medgen.data.store import processes
from medgen.data.store.file_memo import Memory
from medgen.errors import DataError

FORMAT = 4
"""Part of what is remembered of a scan: raise it with any change of what a head is."""
KNOWN = ("bravo", "t1_gd", "t1_pre", *(name for name in SPELLINGS if name not in ("bravo", "t1_gd", "t1_pre")))
"""The scans that are looked at, the first that a patient has."""
STEP, FINE = 2, 48
"""Every so many voxels are looked at for the box, along axes of at least so many: an eighth of the work."""
SPECK = 0.01
"""Share of the foreground below which a part of its own is no head."""
NEAR = 3.0
"""mm around the head that count as head for a lesion, as masks and brains are cut out with different tools."""
LABELS = 64
"""Different whole numbers up to which an unknown file is taken for a segmentation."""


class Head(NamedTuple):
    """A patient's head, as plain values. shape, spacing: of the volume. low, high: its box, voxels from the first face.

    step: voxels per voxel that the box was looked for in. filled: where a lesion may be, packed, empty where no scan
    tells.
    """

    shape: Sequence[int]
    spacing: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    step: Sequence[int] = (1, 1, 1)
    filled: str = ""

    def width(self, axis: int) -> float:
        """The longer side of the box across an axis, mm."""
        return max((self.high[i] - self.low[i]) * self.spacing[i] for i in range(3) if i != axis)

    def room(self, axis: int) -> float:
        """The side of the square across an axis that holds the box, wherever in its voxels the head ends, mm."""
        sides = [(self.high[i] - self.low[i] + self.step[i]) * self.spacing[i] for i in range(3) if i != axis]
        return max(sides)

    def air(self, inside: np.ndarray) -> tuple[float, float]:
        """The shares of a mask that lie outside the head, and so far outside that no tool's edge explains it."""
        if not self.filled or tuple(self.shape) != inside.shape or not inside.any():
            return 0.0, 0.0
        where = np.nonzero(inside)
        filled = self._unpacked()
        outside = float(np.mean(~filled[where]))
        return outside, float(np.mean(~self._near(filled, where))) if outside else 0.0

    def voxels(self) -> int:
        """How many of the volume's voxels are head; 0 where no scan tells."""
        return int(np.count_nonzero(self._unpacked())) if self.filled else 0

    def covered(self, inside: np.ndarray) -> float:
        """The share of the head that a mask covers, at most 1; 0 where no scan tells."""
        head = self.voxels() if tuple(self.shape) == inside.shape else 0
        return min(1.0, float(np.count_nonzero(inside)) / head) if head else 0.0

    def _unpacked(self) -> np.ndarray:
        bits = np.frombuffer(zlib.decompress(base64.b64decode(self.filled)), np.uint8)
        return np.unpackbits(bits, count=int(np.prod(self.shape))).reshape(self.shape).astype(bool)

    def _near(self, filled: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        """Tell which of some voxels are in the head or `NEAR` it."""
        from scipy import ndimage

        reaches = [max(1, round(NEAR / mm)) for mm in self.spacing]
        starts = [max(0, int(each.min()) - reach) for each, reach in zip(where, reaches, strict=True)]
        ends = [int(each.max()) + reach + 1 for each, reach in zip(where, reaches, strict=True)]
        around = filled[tuple(map(slice, starts, ends))].astype(np.uint8)
        for axis, reach in enumerate(reaches):
            around = ndimage.maximum_filter1d(around, 2 * reach + 1, axis, mode="constant")
        return np.asarray(around[tuple(each - start for each, start in zip(where, starts, strict=True))] > 0)


class Sought(NamedTuple):
    """Where to look for a patient's head, for a worker process. own: a file of the patient that is read anyway.

    scans: the first of them that shows a head; what is not `known` by its name may be a segmentation.
    """

    own: Path
    scans: list[Path]
    known: bool
    settings: DataSettings


def seek(settings: DataSettings, patients: Sequence[Patient], own: Sequence[Path]) -> list[Sought]:
    """Which scan tells where each patient's head is; a function of names and headers. own: a file of each patient."""
    masks = [layouts.mask(settings, name).file for name in sorted(layouts.mask_names(settings))]
    known = [name for name in KNOWN if name not in masks]
    try:
        found = layouts.survey(settings, [], [*dict.fromkeys([*masks, *known])]).patients
    except DataError:  # the layout gives names to no other files, as where each file is a patient
        found = []
    named = {(each.id, each.split): each.files for each in found}
    crowded = _crowded(patients)
    sought = []
    for patient, path in zip(patients, own, strict=True):
        files = named.get((patient.id, patient.split), {})
        scans = [files[name] for name in known if name in files]
        chosen = next((scan for scan in scans if _same_grid(path, scan)), None)
        others = [] if chosen or path.parent in crowded else _others(patient, path, {files.get(name) for name in masks})
        sought.append(Sought(path, [chosen] if chosen else others, chosen is not None, settings))
    return sought


def find(sought: Sequence[Sought], cache: Path, told: Callable[[int], None] = lambda done: None) -> list[Head]:
    """The heads, read by several processes, or remembered. told: called with how many have been read."""
    memory = Memory(cache / "heads.json")
    heads = [_remembered(memory.recall(each.scans[0], _question(each)) if each.known else None) for each in sought]
    unread = [number for number, head in enumerate(heads) if head is None]
    jobs = [sought[number] for number in unread]
    paths = [path for job in jobs for path in job.scans]
    workers = processes.count_workers(paths, len(jobs), jobs[0].settings.workers) if jobs else 1
    with processes.results(look, jobs, workers) as results:
        for done, (number, head) in enumerate(zip(unread, results, strict=True), start=1):
            heads[number] = head
            if sought[number].known and head.filled:
                memory.remember(sought[number].scans[0], head._asdict())
            told(done)
    memory.save()
    return [head for head in heads if head is not None]


def look(sought: Sought) -> Head:
    """A patient's head; the whole volume where no scan shows one."""
    for path in sought.scans:
        try:
            volume = gate.read(path, sought.settings.max_voxels, nan=sought.settings.nan)
        except DataError:  # whoever trains on it says so
            continue
        if sought.known or not _is_segmentation(volume.data):
            return locate(volume)
    try:
        place = gate.place(sought.own)
    except DataError:
        return Head((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Head(place.shape, place.spacing, (0.0, 0.0, 0.0), [float(count) for count in place.shape])


def locate(volume: gate.Volume) -> Head:
    """The head in a scan."""
    from scipy import ndimage

    from medgen.data.store.foreground import foreground

    step = [STEP if count >= FINE else 1 for count in volume.data.shape]
    coarse = np.asfortranarray(volume.data[tuple(slice(None, None, each) for each in step)])
    if not np.ptp(coarse):  # it shows nothing but single voxels, and those were left out
        step, coarse = [1, 1, 1], volume.data
    solid = _without_specks(foreground(coarse))
    (box,) = ndimage.find_objects(solid.astype(np.uint8))
    low = [float(each.start * by) for each, by in zip(box, step, strict=True)]
    high = [
        float(min((each.stop - 1) * by + 1, count))
        for each, by, count in zip(box, step, volume.data.shape, strict=True)
    ]
    filled = _filled(solid)
    if max(step) > 1:
        ends = tuple(slice(int(start), int(stop) + by) for start, stop, by in zip(low, high, step, strict=True))
        filled = _refined(filled, foreground(volume.data), step)
        filled[ends] = _filled(filled[ends])  # in the box, as it takes its time
    text = base64.b64encode(zlib.compress(np.packbits(filled).tobytes())).decode()
    return Head(list(volume.data.shape), list(volume.spacing), low, high, step, text)


def _question(sought: Sought) -> str:
    return repr((FORMAT, sought.settings.max_voxels, sought.settings.nan))


def _remembered(value: Any) -> Head | None:
    return Head(**value) if isinstance(value, dict) and value.keys() == set(Head._fields) else None


def _crowded(patients: Iterable[Patient]) -> set[Path]:
    """Folders in which several patients' files lie."""
    owners: dict[Path, set[str]] = {}
    for patient in patients:
        for path in patient.files.values():
            owners.setdefault(path.parent, set()).add(patient.id)
    return {folder for folder, ids in owners.items() if len(ids) > 1}


def _others(patient: Patient, own: Path, masks: set[Path | None]) -> list[Path]:
    """The patient's other volumes in the same place; first those whose names have a word for a known scan."""
    folders = {path.parent for path in patient.files.values()}
    files = sorted(path for path in itertools.chain.from_iterable(map(Path.iterdir, folders)) if path not in masks)
    volumes = [path for path in files if path.name.lower().endswith((".nii", ".nii.gz")) and path.name[0] != "."]
    return [path for path in sorted(volumes, key=_rank) if _same_grid(own, path)]


def _rank(path: Path) -> int:
    words = set(re.split("[^a-z0-9]+", path.name.lower()))
    ranks = [rank for rank, name in enumerate(KNOWN) if words & {name, *SPELLINGS.get(name, name).split("|")}]
    return min(ranks, default=len(KNOWN))


def _same_grid(own: Path, other: Path) -> bool:
    if own == other:
        return True
    try:
        places = [gate.place(path) for path in (own, other)]
    except DataError:
        return False
    first, second = (Place(path, each.shape, each.affine) for path, each in zip((own, other), places, strict=True))
    return not any(mismatches(first, second))


def _is_segmentation(data: np.ndarray) -> bool:
    some = data[tuple(slice(None, None, max(1, count // 64)) for count in data.shape)]
    values = np.unique(some)
    return len(values) <= LABELS and bool(np.allclose(values, np.rint(values), atol=voxels.LABEL_TOLERANCE))


def _without_specks(inside: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    parts, count = ndimage.label(inside, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes >= min(SPECK * sizes.sum(), sizes.max()))[parts])


def _filled(solid: np.ndarray) -> np.ndarray:
    """The head with all that lies between its parts along two axes, such as a cavity at the rim."""
    between = [_between(solid, axis) for axis in range(3)]
    return np.asarray(solid | (between[0] & between[1]) | (between[0] & between[2]) | (between[1] & between[2]))


def _refined(filled: np.ndarray, inside: np.ndarray, step: Sequence[int]) -> np.ndarray:
    """The same of every voxel: as the looked-at ones around it where these agree, else whether it is `inside`."""
    every = some = filled
    for axis, (by, count) in enumerate(zip(step, inside.shape, strict=True)):
        before = np.arange(count) // by
        after = np.minimum(-(-np.arange(count) // by), filled.shape[axis] - 1)
        every = every.take(before, axis) & every.take(after, axis)
        some = some.take(before, axis) | some.take(after, axis)
    return np.asarray(every | (some & inside))


def _between(solid: np.ndarray, axis: int) -> np.ndarray:
    ahead = np.maximum.accumulate(solid, axis)
    behind = np.flip(np.maximum.accumulate(np.flip(solid, axis), axis), axis)
    return np.asarray(ahead & behind)
