"""What a dataset's masks become on the grid of its slices, and whether they lie in the head: a part
of `data check`.

What was found is remembered until a file or a setting changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np

from medgen import __version__
from medgen.api.tables import AXES, DataSettings, MaskSettings
from medgen.data.grid import Grid
from medgen.data.scans import layouts
from medgen.data.scans.layouts import SPLITS, Patient
from medgen.data.store import concerns, patient_heads, processes, spacing
from medgen.data.store.concerns import Figures, Files
from medgen.data.store.file_memo import Memory
from medgen.data.store.head import Head
from medgen.errors import DataError, Problem

FORMAT = 3
"""Part of what is remembered of a mask: raise it with any change of `Trace`."""


class Trace(NamedTuple):
    """What became of a mask's file, as plain values, as in `slices.Slices`."""

    lesions: list[list[int]]
    lost: list[list[float]]
    air: list[list[float]]
    cut_off: float


class Audit(NamedTuple):
    """Faults and warnings, with the files' own paths, and mm per pixel (0 where there is nothing to
    look at).

    heads: voxels of the head on the grid of each file of masks, where a scan tells.
    """

    faults: list[Problem]
    warnings: list[Problem]
    spacing: float
    heads: dict[Path, int]


class _Job(NamedTuple):
    """A file of masks, for a worker process. masks: the labels of each."""

    path: Path
    masks: dict[str, tuple[int, ...]]
    head: Head
    settings: DataSettings


def audit(
    patients: Sequence[Patient], settings: DataSettings, cache: Path, root: Path, sizes: bool
) -> Audit:
    """Look at patients whose files have no faults. sizes: also tell of what does not fit and of
    lesions too small.
    """
    patients = [patient for patient in patients if patient.files and patient.split in SPLITS]
    masks = {name: layouts.mask(settings, name) for name in sorted(layouts.mask_names(settings))}
    own = [_own(patient, [mask.file for mask in masks.values()]) for patient in patients]
    try:
        sought = patient_heads.seek(settings, patients, own) if patients else []
    except DataError:  # of the arrangement, which has been told
        sought = []
    if not sought:
        return Audit([], [], 0.0, {})
    found = patient_heads.find(sought, cache)
    settings = attrs.evolve(settings, spacing=spacing.choose(settings, found))
    widths = [head.width(AXES.index(settings.axis)) if head.filled else np.nan for head in found]
    jobs = [
        job
        for patient, head in zip(patients, found, strict=True)
        for job in _jobs(patient, masks, head, settings)
    ]
    traces = _traced(jobs, cache)
    looked = _looked(patients, sought, jobs, traces)
    warnings = [*concerns.odd_sizes(widths, [each.scans[:1] for each in sought])]
    warnings += [fault for each in looked for fault in concerns.airborne(*each)]
    if sizes:
        warnings += [Problem(root, *each) for each in _of_cohort(jobs, traces, settings, masks)]
    refused = [fault for each in looked for fault in concerns.faults(*each)]
    return Audit(refused, warnings, settings.spacing, {job.path: job.head.voxels() for job in jobs})


def _looked(
    patients: Sequence[Patient],
    sought: Sequence[patient_heads.Sought],
    jobs: Sequence[_Job],
    traces: Sequence[Trace],
) -> list[tuple[list[list[float]], Files]]:
    """The air of each mask of a job, with the files that it is told of."""
    both = zip(patients, sought, strict=True)
    scans = {path: each.scans for one, each in both for path in one.files.values()}
    every = zip(jobs, traces, strict=True)
    return [(each.air, Files([job.path] * len(each.air), scans[job.path])) for job, each in every]


def trace(job: _Job) -> Trace | None:
    """Read one file of masks."""
    from medgen.data.store.preprocess import Channel, Slices, cut

    result = cut(
        [Channel(job.path, labels) for labels in job.masks.values()], job.settings, job.head
    )
    if not isinstance(result, Slices):
        return None
    return Trace(result.lesions.tolist(), result.lost.tolist(), result.air.tolist(), result.cut_off)


def _own(patient: Patient, masks: Iterable[str]) -> Path:
    """The file whose place the head is wanted in: the mask's, if there is one."""
    return next(
        (patient.files[name] for name in masks if name in patient.files),
        next(iter(patient.files.values())),
    )


def _jobs(
    patient: Patient, masks: Mapping[str, MaskSettings], head: Head, settings: DataSettings
) -> Iterator[_Job]:
    """One for each file that masks are read from."""
    for source, path in patient.files.items():
        labels = {
            name: tuple(sorted(set(mask.labels)))
            for name, mask in masks.items()
            if mask.file == source
        }
        if labels:
            yield _Job(path, labels, head, settings)


def _traced(jobs: Sequence[_Job], cache: Path) -> list[Trace]:
    memory = Memory(cache / "audited.json")
    traces = [_remembered(memory.recall(job.path, _question(job))) for job in jobs]
    unknown = [number for number, each in enumerate(traces) if each is None]
    todo = [jobs[number] for number in unknown]
    workers = (
        processes.count_workers((job.path for job in todo), len(todo), todo[0].settings.workers)
        if todo
        else 1
    )
    with processes.results(trace, todo, workers) as results:
        for number, found in zip(unknown, results, strict=True):
            traces[number] = found
            if found is not None:
                memory.remember(jobs[number].path, found._asdict())
    memory.save()
    nothing = Trace([], [], [], 0.0)
    return [each or nothing for each in traces]


def _question(job: _Job) -> str:
    settings = job.settings
    parts = [
        *([settings.axis, settings.shape[0]] if settings.axes == 2 else settings.shape),
        settings.spacing,
        settings.nan,
        settings.max_voxels,
        job.masks,
        job.head,
        *([] if settings.crop == "none" else [settings.crop]),
    ]
    return hashlib.sha256(json.dumps([__version__, FORMAT, *parts]).encode()).hexdigest()


def _remembered(value: object) -> Trace | None:
    return (
        Trace(**value) if isinstance(value, dict) and value.keys() == set(Trace._fields) else None
    )


def _of_cohort(
    jobs: Sequence[_Job], traces: Sequence[Trace], settings: DataSettings, masks: Iterable[str]
) -> list[tuple[str, str]]:
    """What is told of all patients together, for each mask."""
    said: dict[tuple[str, str], None] = {}
    for name in masks:
        mine = [
            (each, [*job.masks].index(name))
            for job, each in zip(jobs, traces, strict=True)
            if name in job.masks
        ]
        mine = [(each, place) for each, place in mine if each.lesions]
        lost = [[0.0, *row[1:]] for each, place in mine for row in each.lost if row[0] == place]
        figures = Figures(
            grid=Grid.of(settings, settings.spacing),
            lesions=np.array([[each.lesions[place]] for each, place in mine]).reshape(-1, 1, 2),
            lost=np.array(lost).reshape(-1, 3),
            air=np.empty(0),
            cut_off=np.array([each.cut_off for each, _ in mine]),
            width=np.empty(0),
            covered=np.empty(0),
        )
        said |= dict.fromkeys([*concerns.too_large(figures), *concerns.too_small(figures, [name])])
    return list(said)
