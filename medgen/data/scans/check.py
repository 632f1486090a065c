"""Everything that is wrong with a dataset, and what is legal but odd: `medgen data check`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen.api.tables import DataSettings
from medgen.data.scans import layouts, mask_check
from medgen.data.scans.consistency import Place, mismatches, overlaps
from medgen.data.scans.layouts import Patient, Survey
from medgen.data.scans.oddities import (
    cut_across,
    filling_head,
    odd_labels,
    odd_sizes,
    other_orientations,
    same_voxels,
    without_background,
    without_masks,
    without_validation,
)
from medgen.data.scans.read_findings import Advance, File, read_files, survey_all
from medgen.data.store.file_memo import cache_root
from medgen.errors import DataError, Problem


class Lesions(NamedTuple):
    """The connected parts of a mask over the dataset. volumes: of each, mm3, ascending. specks:
    those of one voxel.
    """

    volumes: list[float]
    patients: int
    specks: int


class Background(NamedTuple):
    """What lies around the head, a word of `foreground.detect`. path: below the dataset's folder."""

    path: Path
    patient: str
    channel: str
    kind: str


class Report(NamedTuple):
    """What `check` found. Paths are below the folder, except the folder's own.

    spacing: mm per pixel of the slices that a recipe is trained on.
    """

    patients: list[Patient]
    sources: list[str]
    files: int
    faults: list[Problem]
    warnings: list[Problem]
    lesions: dict[str, Lesions]
    backgrounds: list[Background]
    spacing: float = 0.0

    @property
    def exclude(self) -> list[str]:
        """Return patients to leave out, so that what is left has fewer faults, or none."""
        return sorted({fault.patient for fault in self.faults if fault.patient})


def _odd(
    good: list[File], scans: list[File], masks: list[File], settings: DataSettings
) -> Iterator[Problem]:
    """Yield what is legal but odd about files."""
    yield from (*same_voxels(good), *other_orientations(good), *without_background(scans))
    yield from odd_labels(masks, settings)


def check(
    settings: DataSettings, channels: Sequence[str] | None = None, progress: Advance | None = None,
    cache: Path | None = None,
) -> Report:  # fmt: skip
    """Read a whole dataset. Raises `DataError` where there is none at all.

    channels: those that patients must have; without them, all that settings and names tell.
    progress: called with the files read and their number.
    """
    _require_root(settings)
    survey = survey_all(settings, channels)
    files = read_files(survey, settings, progress, cache or cache_root())
    scans, masks = _separate(good := [file for file in files if not file.finding.faults])
    faults = [_below(survey.root, fault) for fault in survey.faults]
    faults += [*_file_faults(files), *_mismatches(good)]
    warnings = [_below(survey.root, fault) for fault in survey.left_out]
    for file in files:
        warnings += [Problem(file.path, *each, file.patient.id) for each in file.finding.warnings]
    shared = [*overlaps(file.scan() for file in scans or masks)]
    (warnings if settings.allow_patient_overlap else faults).extend(shared)
    sizes = [*odd_sizes(masks)]
    warnings += [*_odd(good, scans, masks, settings), *sizes]
    warnings += [*cut_across(survey, good, settings), *without_validation(survey)]
    warnings += without_masks(survey, settings) if channels is None else []
    sound, where = _sound(survey, faults), cache or cache_root()
    audited = mask_check.audit(sound, settings, where, survey.root, channels is not None)
    faults += _owned(survey, audited.faults)
    found = [*_owned(survey, audited.warnings), *filling_head(survey, masks, audited.heads)]
    warnings += [fault for fault in found if fault.where not in {each.where for each in sizes}]
    warnings += [_below(survey.root, fault) for fault in survey.unread]
    mm = audited.spacing if channels is not None else 0.0
    shown = _lesions(masks), _backgrounds(scans)
    return Report(survey.patients, survey.sources, len(files), faults, warnings, *shown, mm)


def _require_root(settings: DataSettings) -> None:
    root = layouts.expand(settings.root)
    if not root.exists():
        raise DataError(Problem(root, "does not exist", "Check the path"))


def _backgrounds(scans: Iterable[File]) -> list[Background]:
    return [
        Background(file.path, file.patient.id, file.source, file.finding.background)
        for file in scans
    ]


def _owned(survey: Survey, faults: Iterable[Problem]) -> list[Problem]:
    """Return faults with the patients whose files they are about."""
    owners = {path: patient.id for patient in survey.patients for path in patient.files.values()}
    return [
        _below(survey.root, fault._replace(patient=owners.get(_file(fault), "")))
        for fault in faults
    ]


def _below(root: Path, fault: Problem) -> Problem:
    return fault._replace(where=_file(fault).relative_to(root)) if fault.where != root else fault


def _file(fault: Problem) -> Path:
    return Path(str(fault.where))


def _file_faults(files: Iterable[File]) -> Iterator[Problem]:
    for file in files:
        for what, fix in file.finding.faults:
            yield Problem(file.path, what, fix, file.patient.id)


def _mismatches(files: Iterable[File]) -> Iterator[Problem]:
    first: dict[tuple[str, str], Place] = {}
    for file in files:
        place = file.place()
        for fault in mismatches(
            first.setdefault((file.patient.split, file.patient.id), place), place
        ):
            yield fault._replace(patient=file.patient.id)


def _sound(survey: Survey, faults: Iterable[Problem]) -> list[Patient]:
    faulty = {fault.patient for fault in faults}
    return [patient for patient in survey.patients if patient.id not in faulty]


def _separate(files: Iterable[File]) -> tuple[list[File], list[File]]:
    scans: list[File] = []
    masks: list[File] = []
    for file in files:
        (masks if file.masks else scans).append(file)
    return scans, masks


def _lesions(files: Iterable[File]) -> dict[str, Lesions]:
    """Return these values of every mask, in the order of names."""
    found: dict[str, Lesions] = {}
    for name in sorted({name for file in files for name in file.masks}):
        volumes, patients, specks = [], 0, 0
        for file in files:
            sizes = file.finding.lesions.get(name, ())
            voxel = float(np.prod(file.finding.spacing))
            volumes += [size * voxel for size, count in sizes for _ in range(count)]
            patients += bool(sizes)
            specks += sum(count for size, count in sizes if size == 1)
        found[name] = Lesions(sorted(volumes), patients, specks)
    return found
