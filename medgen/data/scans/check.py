"""Everything that is wrong with a dataset, and what is legal but odd: `medgen data check`.

Each file is read once, by the gate that training uses, and remembered. What takes long to import is imported only where
a file is read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medgen import __version__
from medgen.api.tables import DEFAULT_MASK, DataSettings
from medgen.data.scans import audit, layouts, likeness
from medgen.data.scans.consistency import Place, Scan, across_thick, mismatches, overlaps, twins
from medgen.data.scans.layouts import SPELLINGS, Patient, Survey
from medgen.data.scans.nifti import gate
from medgen.data.scans.nifti.gate import Volume
from medgen.data.scans.nifti.problems import Fault
from medgen.data.store import processes
from medgen.data.store.concerns import MOST_OF_A_HEAD
from medgen.data.store.file_memo import Memory, cache_root
from medgen.errors import DataError

FORMAT = 4
"""Part of what is remembered of a file: raise it with any change of `Finding`."""
MOST_OF_A_VOLUME = 0.5
"""Share of a volume beyond which a mask is more likely its own inverse."""

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


class Lesions(NamedTuple):
    """The connected parts of a mask over the dataset. volumes: of each, mm3, ascending. specks: those of one voxel."""

    volumes: list[float]
    patients: int
    specks: int


class Background(NamedTuple):
    """What lies around the head in a scan, a word of `foreground`. path: below the dataset's folder."""

    path: Path
    patient: str
    channel: str
    kind: str


class Report(NamedTuple):
    """What `check` found. Paths in faults and warnings are below the folder, except the folder's own.

    spacing: mm per pixel of the slices that a recipe is trained on.
    """

    patients: list[Patient]
    sources: list[str]
    files: int
    faults: list[Fault]
    warnings: list[Fault]
    lesions: dict[str, Lesions]
    backgrounds: list[Background]
    spacing: float = 0.0

    @property
    def exclude(self) -> list[str]:
        """Patients to leave out, so that what is left has fewer faults, or none."""
        return sorted({fault.patient for fault in self.faults if fault.patient})


def check(
    settings: DataSettings,
    channels: Sequence[str] | None = None,
    progress: Advance | None = None,
    cache: Path | None = None,
) -> Report:
    """Read a whole dataset. channels: those that patients must have; without them, all that settings and names tell.

    progress: called with the files read and their number. Raises `DataError` where there is no dataset at all.
    """
    root = layouts.expand(settings.root)
    if not root.exists():
        raise DataError(Fault(root, "does not exist", "Check the path").line())
    survey = _survey(settings, channels)
    files = _read(survey, settings, progress, cache or cache_root())
    good = [file for file in files if not file.finding.faults]
    scans, masks = _separate(good)
    faults = [_below(survey.root, fault) for fault in survey.faults] + [*_file_faults(files), *_mismatches(good)]
    warnings = [_below(survey.root, fault) for fault in survey.left_out]
    warnings += [Fault(file.path, *each, file.patient.id) for file in files for each in file.finding.warnings]
    shared = [*overlaps(file.scan() for file in scans or masks)]
    (warnings if settings.allow_patient_overlap else faults).extend(shared)
    for find in (_twins, _orientations):
        warnings += find(good)
    sizes = [*_sizes(masks)]
    warnings += [*_no_background(scans), *_labels(masks, settings), *sizes]
    warnings += [*_thick(survey, good, settings), *_no_val(survey)]
    warnings += _no_masks(survey, settings) if channels is None else []
    audited = audit.audit(_sound(survey, faults), settings, cache or cache_root(), survey.root, channels is not None)
    faults += _owned(survey, audited.faults)
    inverted = {fault.path for fault in sizes}
    found = [*_owned(survey, audited.warnings), *_filling(survey, masks, audited.heads)]
    warnings += [fault for fault in found if fault.path not in inverted]
    warnings += [_below(survey.root, fault) for fault in survey.unread]
    backgrounds = [Background(file.path, file.patient.id, file.source, file.finding.background) for file in scans]
    mm = audited.spacing if channels is not None else 0.0
    return Report(survey.patients, survey.sources, len(files), faults, warnings, _lesions(masks), backgrounds, mm)


# Reading


class _Job(NamedTuple):
    """A file, for a worker process. masks: the labels of each mask that is read from it; none for a scan."""

    path: Path
    masks: dict[str, tuple[int, ...]]
    settings: DataSettings


def _survey(settings: DataSettings, channels: Sequence[str] | None) -> Survey:
    if channels is not None:
        return layouts.survey(settings, [layouts.source(settings, channel) for channel in channels])
    masks = [mask.file for mask in settings.masks.values()]
    known = ["t1_pre", "t1_gd", *SPELLINGS, DEFAULT_MASK]  # t1_gd before bravo, as others' names may mean either
    survey = layouts.survey(settings, [*(name for name in settings.files if name not in masks), *masks], known)
    if not survey.sources:
        what = f"has no file of a name that is known ({', '.join(dict.fromkeys(known))})"
        fix = f"""Name them by patterns, such as data.files.{known[1]}="*T1c*\""""
        survey.faults.append(Fault(survey.root, what, fix))
    return survey


def _read(survey: Survey, settings: DataSettings, progress: Advance | None, cache: Path) -> list[File]:
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


def _remembered(value: Any) -> Finding | None:
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


def _contrast(job: _Job, volume: Volume, inside: np.ndarray) -> Iterator[Fault]:
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


# Faults


def _owned(survey: Survey, faults: Iterable[Fault]) -> list[Fault]:
    """Faults with the patients whose files they are about."""
    owners = {path: patient.id for patient in survey.patients for path in patient.files.values()}
    return [_below(survey.root, fault._replace(patient=owners.get(fault.path, ""))) for fault in faults]


def _below(root: Path, fault: Fault) -> Fault:
    return fault._replace(path=fault.path.relative_to(root)) if fault.path != root else fault


def _file_faults(files: Iterable[File]) -> Iterator[Fault]:
    for file in files:
        for what, fix in file.finding.faults:
            yield Fault(file.path, what, fix, file.patient.id)


def _mismatches(files: Iterable[File]) -> Iterator[Fault]:
    first: dict[tuple[str, str], Place] = {}
    for file in files:
        place = file.place()
        for fault in mismatches(first.setdefault((file.patient.split, file.patient.id), place), place):
            yield fault._replace(patient=file.patient.id)


# Legal but odd


def _sound(survey: Survey, faults: Iterable[Fault]) -> list[Patient]:
    faulty = {fault.patient for fault in faults}
    return [patient for patient in survey.patients if patient.id not in faulty]


def _separate(files: Iterable[File]) -> tuple[list[File], list[File]]:
    scans: list[File] = []
    masks: list[File] = []
    for file in files:
        (masks if file.masks else scans).append(file)
    return scans, masks


def _twins(files: Iterable[File]) -> Iterator[Fault]:
    for first, scan in twins(file.scan() for file in files):
        if first.split == scan.split:
            yield Fault(scan.path, f"has the voxels of {first.path}", "Keep one, if they are one scan", scan.patient)


def _thick(survey: Survey, files: Iterable[File], settings: DataSettings) -> Iterator[Fault]:
    firsts = {(file.patient.split, file.patient.id): file.finding.spacing for file in files}
    if found := across_thick([*firsts.values()], settings.axis):
        yield Fault(survey.root, *found)


def _orientations(files: Sequence[File]) -> Iterator[Fault]:
    fix = "Axes are put in order when it is read; check that left is left"
    yield from _odd(files, "axes {}", lambda file: file.finding.orientation, fix)


def _odd(files: Sequence[File], noun: str, value: Callable[[File], str], fix: str) -> Iterator[Fault]:
    """Files in which a value is not what it is in most."""
    counts = Counter(map(value, files)).most_common()
    if len(counts) < 2:
        return
    usual, count = counts[0]
    for file in files:
        if value(file) != usual:
            what = f"has {noun.format(value(file))}, but {count} of {len(files)} have {usual}"
            yield Fault(file.path, what, fix, file.patient.id)


def _no_background(scans: Iterable[File]) -> Iterator[Fault]:
    for file in scans:
        if file.finding.background == "none":
            what = "has no background that a head stands out from, most or all of it counts as head"
            fix = (
                "Leave it out if it shows no head, take the air off if it has some (skull stripping); "
                "a part from within a head is read as it is"
            )
            yield Fault(file.path, what, fix, file.patient.id)


def _labels(files: Sequence[File], settings: DataSettings) -> Iterator[Fault]:
    for file in files:
        held = [label for label, _ in file.finding.labels if label]
        every = next((name for name, labels in file.masks.items() if not labels), None)
        others = [label for label in held if all(label not in labels for labels in file.masks.values())]
        if every and held not in ([], [1]):
            fix = f"Choose, if not all are lesion, such as data.masks.{every}.labels=[{held[0]}]"
            yield Fault(file.path, f"holds {_listed(held)}, all read as {every}", fix, file.patient.id)
        elif others and not every:
            yield Fault(file.path, f"holds {_listed(others)}, of no mask", "Check data.masks", file.patient.id)
    yield from _unseen(files, settings)


def _listed(labels: Sequence[int]) -> str:
    shown = ", ".join(map(str, labels[: layouts.SHOWN])) + (", ..." if len(labels) > layouts.SHOWN else "")
    return f"label{'s' if len(labels) > 1 else ''} {shown}"


def _unseen(files: Iterable[File], settings: DataSettings) -> Iterator[Fault]:
    """Labels that the recipe names and no file holds."""
    for name, mask in settings.masks.items():
        held = {label for file in files if name in file.masks for label, _ in file.finding.labels}
        for label in sorted(set(mask.labels) - held):
            yield Fault(settings.root, f"holds no label {label} of mask {name}", f"Check data.masks.{name}.labels")


def _sizes(files: Iterable[File]) -> Iterator[Fault]:
    for file in files:
        for name, share in file.shares():
            if not share:
                yield Fault(file.path, f"has an empty mask {name}", "Check it, if there are lesions", file.patient.id)
            elif share > MOST_OF_A_VOLUME:
                what = f"has a mask {name} of {share:.0%} of all voxels"
                yield Fault(file.path, what, "Check it, it may be inverted", file.patient.id)


def _filling(survey: Survey, files: Iterable[File], heads: Mapping[Path, int]) -> Iterator[Fault]:
    """Masks of most of the head. heads: voxels of the head on each file's grid."""
    for file in files:
        head = heads.get(survey.root / file.path, 0)
        for name, share in file.shares():
            filled = share * file.voxels / head if head else 0.0
            if filled > MOST_OF_A_HEAD:
                what = f"has a mask {name} that covers {min(filled, 1.0):.0%} of the head"
                held = [label for label, _ in file.finding.labels if label]
                labels = f"choose of its {_listed(held)} with data.masks.{name}.labels, or " if len(held) > 1 else ""
                fix = f"If it is not of lesions, {labels}set data.files.{file.source} to another file"
                yield Fault(file.path, what, fix, file.patient.id)


def _no_val(survey: Survey) -> Iterator[Fault]:
    if all(patient.split != "val" for patient in survey.patients):
        yield Fault(survey.root, "has no patients for validation, so no best.pt is written", "Add patients")


def _no_masks(survey: Survey, settings: DataSettings) -> Iterator[Fault]:
    masks = {layouts.source(settings, name) for name in layouts.mask_names(settings)}
    if survey.sources and not masks & set(survey.sources):
        fix = f"""Name their files if there are any, such as data.files.{DEFAULT_MASK}="*_mask.nii.gz\""""
        yield Fault(survey.root, f"has no masks ({', '.join(sorted(masks))}) among its channels", fix)


def _lesions(files: Iterable[File]) -> dict[str, Lesions]:
    """Of every mask, in the order of names."""
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
