"""What each file of a dataset holds: read once, by the gate that training uses, and remembered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen import __version__
from medgen.api.tables import DEFAULT_MASK, DataSettings
from medgen.data.scans import layouts, likeness
from medgen.data.scans.consistency import Place, Scan
from medgen.data.scans.finding import Finding, Job
from medgen.data.scans.layouts import SPELLINGS, Patient, Survey
from medgen.data.store import processes
from medgen.data.store.file_memo import Memory
from medgen.errors import Problem

FORMAT = 4
"""Part of what is remembered of a file: raise it with any change of `Finding`."""
Advance = Callable[[int, int], None]


class File(NamedTuple):
    """A file of a patient. path: below the dataset's folder. masks: the labels of each mask that is
    read from it.
    """

    patient: Patient
    source: str
    path: Path
    masks: dict[str, tuple[int, ...]]
    finding: Finding

    @property
    def voxels(self) -> int:
        return int(np.prod(self.finding.shape))

    def shares(self) -> list[tuple[str, float]]:
        """Return the masks that are read from it, and the share of the volume that each has."""
        lesions = self.finding.lesions.items()
        return [
            (name, sum(size * count for size, count in sizes) / self.voxels)
            for name, sizes in lesions
        ]

    def place(self) -> Place:
        return Place(self.path, tuple(self.finding.shape), np.array(self.finding.affine))

    def scan(self) -> Scan:
        sketch = likeness.from_text(self.finding.likeness)
        return Scan(self.patient.id, self.patient.split, self.path, self.finding.content, sketch)


def survey_all(settings: DataSettings, channels: Sequence[str] | None) -> Survey:
    if channels is not None:
        return layouts.survey(settings, [layouts.source(settings, channel) for channel in channels])
    masks = [mask.file for mask in settings.masks.values()]
    known = [
        "t1_pre",
        "t1_gd",
        *SPELLINGS,
        DEFAULT_MASK,
    ]  # t1_gd before bravo, as others' names may mean either
    survey = layouts.survey(
        settings, [*(name for name in settings.files if name not in masks), *masks], known
    )
    if not survey.sources:
        what = f"has no file of a name that is known ({', '.join(dict.fromkeys(known))})"
        fix = f"""Name them by patterns, such as data.files.{known[1]}="*T1c*\""""
        survey.faults.append(Problem(survey.root, what, fix))
    return survey


def read_files(
    survey: Survey, settings: DataSettings, progress: Advance | None, cache: Path
) -> list[File]:
    owners: dict[Path, tuple[Patient, str]] = {}
    for patient in survey.patients:
        for source, path in patient.files.items():
            if path not in survey.absent:
                owners.setdefault(path, (patient, source))
    masks = {source: _masks_of(settings, source) for source in survey.sources}
    jobs = [Job(path, masks[source], settings) for path, (_, source) in owners.items()]
    findings = _examined(jobs, cache, progress or (lambda done, total: None))
    return [
        File(patient, source, path.relative_to(survey.root), masks[source], findings[path])
        for path, (patient, source) in owners.items()
    ]


def _masks_of(settings: DataSettings, source: str) -> dict[str, tuple[int, ...]]:
    masks = {name: layouts.mask(settings, name) for name in sorted(layouts.mask_names(settings))}
    return {
        name: tuple(sorted(set(mask.labels))) for name, mask in masks.items() if mask.file == source
    }


def _examined(jobs: Sequence[Job], cache: Path, progress: Advance) -> dict[Path, Finding]:
    """Return what is in each file, from memory if remembered; only files without faults are."""
    memory = Memory(cache / "checked.json")
    known = {job.path: _remembered(memory.recall(job.path, _question(job))) for job in jobs}
    unknown = [job for job in jobs if known[job.path] is None]
    found = {path: finding for path, finding in known.items() if finding is not None}
    if not unknown:
        return found
    from medgen.data.scans.examination import examine

    workers = processes.count_workers(
        (job.path for job in unknown), len(unknown), jobs[0].settings.workers
    )
    with processes.results(examine, unknown, workers) as results:
        for job, finding in zip(unknown, results, strict=True):
            found[job.path] = finding
            if not finding.faults:
                memory.remember(job.path, finding._asdict())
            progress(len(found) - len(jobs) + len(unknown), len(unknown))
    memory.save()
    return found


def _question(job: Job) -> str:
    """Return all that a finding depends on besides the file."""
    settings = job.settings
    parts = [settings.max_voxels, settings.nan, settings.lower, settings.upper, job.masks]
    return hashlib.sha256(json.dumps([__version__, FORMAT, *parts]).encode()).hexdigest()


def _remembered(value: object) -> Finding | None:
    return (
        Finding(**value)
        if isinstance(value, dict) and value.keys() == set(Finding._fields)
        else None
    )
