"""What each file of a dataset holds: read once, by the gate that training uses, and remembered.

What takes long to import is imported only where a file is read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen import __version__
from medgen.api.tables import DEFAULT_MASK, DataSettings
from medgen.data.scans import layouts, likeness
from medgen.data.scans.consistency import Place, Scan
from medgen.data.scans.layouts import SPELLINGS, Patient, Survey
from medgen.data.scans.nifti import gate
from medgen.data.scans.nifti.gate import Volume
from medgen.data.store import processes
from medgen.data.store.file_memo import Memory
from medgen.errors import Problem

FORMAT = 4
"""Part of what is remembered of a file: raise it with any change of `Finding`."""
Advance = Callable[[int, int], None]


class Finding(NamedTuple):
    """What a file holds, as plain values. faults, warnings: what, and what to do.

    affine: of the canonical volume. orientation: as stored. content: as in `agreement.Scan`. labels: label and voxels.
    lesions: for each mask, size in voxels and how many parts of the mask have it; parts touch at corners at least.
    likeness: of a scan, as text. background: what lies around a scan's head, a word of `foreground`.
    """

    faults: list[tuple[str, str]]
    warnings: list[tuple[str, str]]
    shape: Sequence[int] = ()
    spacing: Sequence[float] = ()
    orientation: str = ""
    affine: Sequence[Sequence[float]] = ()
    content: str = ""
    labels: Sequence[tuple[int, int]] = ()
    lesions: dict[str, Sequence[tuple[int, int]]] = {}  # noqa: RUF012  # nobody writes to it
    likeness: str = ""
    background: str = ""


class File(NamedTuple):
    """A file of a patient. path: below the dataset's folder. masks: the labels of each mask that is read from it."""

    patient: Patient
    source: str
    path: Path
    masks: dict[str, tuple[int, ...]]
    finding: Finding

    @property
    def voxels(self) -> int:
        return int(np.prod(self.finding.shape))

    def shares(self) -> list[tuple[str, float]]:
        """The masks that are read from it, and the share of the volume that each has."""
        lesions = self.finding.lesions.items()
        return [(name, sum(size * count for size, count in sizes) / self.voxels) for name, sizes in lesions]

    def place(self) -> Place:
        return Place(self.path, tuple(self.finding.shape), np.array(self.finding.affine))

    def scan(self) -> Scan:
        sketch = likeness.from_text(self.finding.likeness)
        return Scan(self.patient.id, self.patient.split, self.path, self.finding.content, sketch)


class _Job(NamedTuple):
    """A file, for a worker process. masks: the labels of each mask that is read from it; none for a scan."""

    path: Path
    masks: dict[str, tuple[int, ...]]
    settings: DataSettings


def survey_all(settings: DataSettings, channels: Sequence[str] | None) -> Survey:
    if channels is not None:
        return layouts.survey(settings, [layouts.source(settings, channel) for channel in channels])
    masks = [mask.file for mask in settings.masks.values()]
    known = ["t1_pre", "t1_gd", *SPELLINGS, DEFAULT_MASK]  # t1_gd before bravo, as others' names may mean either
    survey = layouts.survey(settings, [*(name for name in settings.files if name not in masks), *masks], known)
    if not survey.sources:
        what = f"has no file of a name that is known ({', '.join(dict.fromkeys(known))})"
        fix = f"""Name them by patterns, such as data.files.{known[1]}="*T1c*\""""
        survey.faults.append(Problem(survey.root, what, fix))
    return survey


def read_files(survey: Survey, settings: DataSettings, progress: Advance | None, cache: Path) -> list[File]:
    owners: dict[Path, tuple[Patient, str]] = {}
    for patient in survey.patients:
        for source, path in patient.files.items():
            if path not in survey.absent:
                owners.setdefault(path, (patient, source))
    masks = {source: _masks_of(settings, source) for source in survey.sources}
    jobs = [_Job(path, masks[source], settings) for path, (_, source) in owners.items()]
    findings = _examined(jobs, cache, progress or (lambda done, total: None))
    return [
        File(patient, source, path.relative_to(survey.root), masks[source], findings[path])
        for path, (patient, source) in owners.items()
    ]


def _masks_of(settings: DataSettings, source: str) -> dict[str, tuple[int, ...]]:
    masks = {name: layouts.mask(settings, name) for name in sorted(layouts.mask_names(settings))}
    return {name: tuple(sorted(set(mask.labels))) for name, mask in masks.items() if mask.file == source}


def _examined(jobs: Sequence[_Job], cache: Path, progress: Advance) -> dict[Path, Finding]:
    """What is in each file, read only where it is not remembered; only files without faults are."""
    memory = Memory(cache / "checked.json")
    known = {job.path: _remembered(memory.recall(job.path, _question(job))) for job in jobs}
    unknown = [job for job in jobs if known[job.path] is None]
    found = {path: finding for path, finding in known.items() if finding is not None}
    workers = (
        processes.count_workers((job.path for job in unknown), len(unknown), jobs[0].settings.workers) if unknown else 1
    )
    with processes.results(examine, unknown, workers) as results:
        for job, finding in zip(unknown, results, strict=True):
            found[job.path] = finding
            if not finding.faults:
                memory.remember(job.path, finding._asdict())
            progress(len(found) - len(jobs) + len(unknown), len(unknown))
    memory.save()
    return found


def _question(job: _Job) -> str:
    """All that a finding depends on besides the file."""
    settings = job.settings
    parts = [settings.max_voxels, settings.nan, settings.lower, settings.upper, job.masks]
    return hashlib.sha256(json.dumps([__version__, FORMAT, *parts]).encode()).hexdigest()


def _remembered(value: object) -> Finding | None:
    return Finding(**value) if isinstance(value, dict) and value.keys() == set(Finding._fields) else None


def examine(job: _Job) -> Finding:
    """Read one file."""
    from medgen.data.store.foreground import detect

    report, volume = gate.examine(job.path, job.settings.max_voxels, job.settings.nan, mask=bool(job.masks))
    faults = list(report.faults)
    lesions: dict[str, Sequence[tuple[int, int]]] = {}
    sketch = None
    background = ""
    if volume is not None:
        if job.masks:
            lesions = {name: _parts(volume.data, labels) for name, labels in job.masks.items()}
        else:
            inside, background = detect(volume.data)
            faults += _contrast(job, volume, inside)
            sketch = None if faults else likeness.sketch(volume.data, inside, volume.affine)
    return Finding(
        [(fault.what, fault.fix) for fault in faults],
        [(fault.what, fault.fix) for fault in report.warnings],
        report.shape,
        report.spacing,
        report.orientation,
        [] if volume is None else volume.affine.tolist(),
        "" if volume is None or not np.ptp(volume.data) else report.content,
        [*report.labels.items()],
        lesions,
        likeness.to_text(sketch),
        background,
    )


def _contrast(job: _Job, volume: Volume, inside: np.ndarray) -> Iterator[Problem]:
    """What is wrong with a head without contrast, unless medgen wrote it."""
    from medgen.data.store.preprocess import flat, window

    lower, upper = job.settings.lower, job.settings.upper
    low, high = window(volume.data, inside, lower, upper)
    if not (volume.written or low < high):
        yield flat(job.path, low, lower, upper)


def _parts(data: np.ndarray, labels: tuple[int, ...]) -> list[tuple[int, int]]:
    from scipy import ndimage

    from medgen.data.store.preprocess import binary

    parts, count = ndimage.label(binary(data, labels), np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return sorted(Counter(sizes.tolist()).items())
