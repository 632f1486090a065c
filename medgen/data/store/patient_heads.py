"""Find each patient's head in one scan, the same for every mode, whatever the mode reads.

So a generator of masks and one of images that are trained on the same folder have the same scale
and the same places. What takes long to import is imported only where a scan is read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen.api.tables import DataSettings
from medgen.data.scans import layouts
from medgen.data.scans.consistency import Place, mismatches
from medgen.data.scans.layouts import SPELLINGS, Patient
from medgen.data.scans.nifti import gate, voxels
from medgen.data.store import processes
from medgen.data.store.file_memo import Memory
from medgen.data.store.head import Head
from medgen.errors import DataError

FORMAT = 4
"""Part of what is remembered of a scan: raise it with any change of what a head is."""
KNOWN = (
    "bravo",
    "t1_gd",
    "t1_pre",
    *(name for name in SPELLINGS if name not in ("bravo", "t1_gd", "t1_pre")),
)
"""The scans that are looked at, the first that a patient has."""
LABELS = 64
"""Different whole numbers up to which an unknown file is taken for a segmentation."""


class Sought(NamedTuple):
    """Where to look for a patient's head, for a worker. own: a file of theirs that is read anyway.

    scans: the first that shows a head counts; one not `known` by its name may be a segmentation.
    """

    own: Path
    scans: list[Path]
    known: bool
    settings: DataSettings


def seek(settings: DataSettings, patients: Sequence[Patient], own: Sequence[Path]) -> list[Sought]:
    """Return which scan tells where each patient's head is; a function of names and headers. own: a
    file of each patient.
    """
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
        others = (
            []
            if chosen or path.parent in crowded
            else _others(patient, path, {files.get(name) for name in masks})
        )
        sought.append(Sought(path, [chosen] if chosen else others, chosen is not None, settings))
    return sought


def find(
    sought: Sequence[Sought], cache: Path, told: Callable[[int], None] = lambda done: None
) -> list[Head]:
    """Return the heads, remembered or read by several processes. told: called with their number."""
    memory = Memory(cache / "heads.json")
    heads = [
        _remembered(memory.recall(each.scans[0], _question(each)) if each.known else None)
        for each in sought
    ]
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
    """Return a patient's head; the whole volume where no scan shows one."""
    from medgen.data.store.head_finding import locate  # not for heads that are remembered

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
    return Head(
        place.shape, place.spacing, (0.0, 0.0, 0.0), [float(count) for count in place.shape]
    )


def _question(sought: Sought) -> str:
    return repr((FORMAT, sought.settings.max_voxels, sought.settings.nan))


def _remembered(value: object) -> Head | None:
    return Head(**value) if isinstance(value, dict) and value.keys() == set(Head._fields) else None


def _crowded(patients: Iterable[Patient]) -> set[Path]:
    """Return folders in which several patients' files lie."""
    owners: dict[Path, set[str]] = {}
    for patient in patients:
        for path in patient.files.values():
            owners.setdefault(path.parent, set()).add(patient.id)
    return {folder for folder, ids in owners.items() if len(ids) > 1}


def _others(patient: Patient, own: Path, masks: set[Path | None]) -> list[Path]:
    """Return the patient's other volumes in that place, first those named by a word for a scan."""
    folders = {path.parent for path in patient.files.values()}
    files = sorted(
        path
        for path in itertools.chain.from_iterable(map(Path.iterdir, folders))
        if path not in masks
    )
    volumes = [
        path
        for path in files
        if path.name.lower().endswith((".nii", ".nii.gz")) and path.name[0] != "."
    ]
    return [path for path in sorted(volumes, key=_rank) if _same_grid(own, path)]


def _rank(path: Path) -> int:
    words = set(re.split("[^a-z0-9]+", path.name.lower()))
    ranks = [
        rank
        for rank, name in enumerate(KNOWN)
        if words & {name, *SPELLINGS.get(name, name).split("|")}
    ]
    return min(ranks, default=len(KNOWN))


def _same_grid(own: Path, other: Path) -> bool:
    if own == other:
        return True
    try:
        places = [gate.place(path) for path in (own, other)]
    except DataError:
        return False
    first, second = (
        Place(path, each.shape, each.affine)
        for path, each in zip((own, other), places, strict=True)
    )
    return not any(mismatches(first, second))


def _is_segmentation(data: np.ndarray) -> bool:
    some = data[tuple(slice(None, None, max(1, count // 64)) for count in data.shape)]
    values = np.unique(some)
    return len(values) <= LABELS and bool(
        np.allclose(values, np.rint(values), atol=voxels.LABEL_TOLERANCE)
    )
