"""The slice store: every slice of a cohort, ready to train on, in memory-mapped arrays that are found again by content.

A store is a folder `slices-<key>` with a raw array `[slice, size, size]` per channel (float16 images, uint8 masks) and
`index.npz`. It holds no names and no paths: patients are numbers, in the order of `layouts.find`. Which slices are used
is decided when it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import attrs
import numpy as np

from medgen.api.tables import AXES, DataSettings
from medgen.data.scans import consistency, layouts
from medgen.data.scans.layouts import SPLITS, Patient
from medgen.data.scans.likeness import unpacked
from medgen.data.scans.nifti import stream
from medgen.data.scans.nifti.alike import merge_alike
from medgen.data.scans.nifti.problems import Fault, ScanError
from medgen.data.store import cache_folder, concerns, heads, processes, spacing
from medgen.data.store.concerns import Figures
from medgen.data.store.file_memo import Memory, cache_root
from medgen.data.store.head import Head
from medgen.data.store.heads import Sought
from medgen.data.store.preprocess import Channel, Slices, cut
from medgen.errors import DataError, RecipeError
from medgen.system import files
from medgen.system.console import warn

FORMAT = 4
"""Part of the key: raise it with any change of what a slice is."""
UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, TypeError, KeyError, EOFError, RuntimeError)
"""What damage to an .npz makes NumPy and zipfile raise, besides OSError."""
FEWEST = 2
"""Slices to train on: with one there is nothing to learn but that one."""

AS_IMAGE = np.array([-1, 1], np.float16)
"""What a mask's 0 and 1 are among images."""

Progress = Callable[[int, int], None]


class Index(NamedTuple):
    """What is known of each slice. Arrays over slices, `area` `[slice, mask]`; spacing: mm per pixel, one for all.

    content: `[patient, channel]`, as in `agreement.Scan`. voxel: `[patient, 3]`, mm. likeness: of each patient, packed.
    background: `[patient, channel]`, a word of `foreground` as ASCII, empty for a mask. crc: of each channel's file.
    The others are those of `concerns.Figures`.
    """

    patient: np.ndarray
    position: np.ndarray
    foreground: np.ndarray
    area: np.ndarray
    spacing: np.ndarray
    content: np.ndarray
    voxel: np.ndarray
    likeness: np.ndarray
    background: np.ndarray
    crc: np.ndarray
    lesions: np.ndarray
    lost: np.ndarray
    air: np.ndarray
    cut_off: np.ndarray
    width: np.ndarray
    covered: np.ndarray


class SliceStore:
    """Slices of a cohort. Rows number all of them; `select` gives those that are used. Safe to read from any thread.

    spacing: mm per pixel, of every slice. fingerprint: equal for the same slices in the same splits. patient:
    number of each row's patient. position: of each row along the axis, voxels. lesion_area: by mask, px of each row.
    content: `[patient, channel]`, sha256 of the voxels as ASCII, empty for a constant volume. voxel: `[patient, 3]`,
    mm. likeness: of the first image of each patient, packed. background: `[patient, channel]`, a word of `foreground`
    as ASCII, empty for a mask. figures: what there is to warn of.
    """

    def __init__(self, folder: Path, key: str, channels: Sequence[str], masks: frozenset[str], size: int):
        self.channels, self.masks, self.size = tuple(channels), masks & set(channels), size
        index = _read_index(folder)
        self.spacing = float(index.spacing)
        self.figures = Figures(self.spacing, size, *(index[-len(Figures._fields) + 2 :]))
        self.patient, self.position, self.foreground = index.patient, index.position, index.foreground
        self.content, self.background = index.content, index.background
        self.voxel, self.likeness = index.voxel, index.likeness
        names = [channel for channel in self.channels if channel in self.masks]
        self.lesion_area = dict(zip(names, index.area.T, strict=True))
        self._arrays = {
            channel: self._map(folder / str(number), channel in self.masks, int(index.crc[number]))
            for number, channel in enumerate(self.channels)
        }
        self._key = key
        self._rows: dict[str, np.ndarray] = dict.fromkeys(SPLITS, np.arange(len(self)))

    def __len__(self) -> int:
        return len(self.patient)

    @property
    def fingerprint(self) -> str:
        parts = [self._key.encode(), *(self._rows[split].astype("<i8").tobytes() for split in SPLITS)]
        return hashlib.sha256(b"/".join(parts)).hexdigest()[:32]

    def select(self, split: str) -> np.ndarray:
        """The rows of a split that are used, ascending."""
        return self._rows[split]

    def patients(self, split: str) -> int:
        """How many patients have slices in a split."""
        return len(np.unique(self.patient[self._rows[split]]))

    def read(self, rows: np.ndarray, channels: Sequence[str]) -> np.ndarray:
        """`[row, channel, size, size]` float16 in [-1, 1], masks at -1 and 1; the device makes float32 of it."""
        out = np.empty((len(rows), len(channels), self.size * self.size), np.float16)
        for number, channel in enumerate(channels):
            source, mask = self._arrays[channel], channel in self.masks
            for place, row in enumerate(np.asarray(rows).tolist()):
                # a row at a time is a plain copy of memory, twice as fast as one gather of all
                out[place, number] = AS_IMAGE[source[row]] if mask else source[row]
        return out.reshape(len(rows), len(channels), self.size, self.size)

    def use(self, splits: Sequence[str], settings: DataSettings) -> None:
        """Decide which rows are used. splits: of each patient. Raises `DataError` if too few are left to train on."""
        split = np.array(splits)[self.patient]
        excluded = self._excluded(settings)
        used = ~np.any([*excluded.values()], axis=0)
        self._rows = {name: np.flatnonzero(used & (split == name)) for name in SPLITS}
        count = len(self._rows["train"])
        if count < FEWEST:
            train = split == "train"
            counts = [f"{key} excludes {np.count_nonzero(rows & train)}" for key, rows in excluded.items()]
            what = f"{count or 'none'} of the {np.count_nonzero(train)} training slices is used, {', '.join(counts)}"
            raise DataError(f"data: {what}. Change these settings, or add patients.")

    def _excluded(self, settings: DataSettings) -> dict[str, np.ndarray]:
        excluded = {f"data.min_foreground = {settings.min_foreground:g}": self.foreground < settings.min_foreground}
        if settings.lesion_only:
            largest = np.max([*self.lesion_area.values()], axis=0)
            excluded[f"data.lesion_only with data.min_lesion = {settings.min_lesion}"] = largest < settings.min_lesion
        return excluded

    def _map(self, path: Path, mask: bool, crc: int) -> np.ndarray:
        """A channel as `[row, size * size]`, never to be written to."""
        kind = np.uint8 if mask else np.float16
        shape = (len(self), self.size * self.size)
        expected = int(np.prod(shape)) * np.dtype(kind).itemsize
        cache_folder.require_whole(path, expected, crc)
        return cache_folder.mapped(path, kind, shape)


def open_store(
    settings: DataSettings,
    channels: Sequence[str],
    masks: frozenset[str],
    progress: Progress | None = None,
    cache: Path | None = None,
) -> SliceStore:
    """The slices of a cohort, from the cache or, the first time, made from the scans by several processes.

    progress: called with the steps done and their number, two for each patient. cache: the folder for stores,
    `$MEDGEN_CACHE` or the user's cache folder if not given. Raises `DataError` with a line per problem, `StorageError`
    if the cache cannot be written, `RecipeError` if lesions are asked for where no channel is a mask.
    """
    channels = tuple(dict.fromkeys(channels))
    if settings.lesion_only and not masks & set(channels):
        what = f"is true, but no mask is among the channels ({', '.join(channels)})"
        raise RecipeError(f"data.lesion_only: {what}. Set it to false, or use a mode with a mask.")
    cache = cache or cache_root()
    patients = layouts.find(settings, channels, warn)
    jobs = [sources(settings, patient, channels, masks) for patient in patients]
    sought = heads.seek(settings, patients, [job[0].path for job in jobs])
    key = _key(settings, channels, jobs, sought, cache)
    folder = cache / f"slices-{key}"
    store = cache_folder.open_or_make(
        folder,
        "the slice store",
        lambda: SliceStore(folder, key, channels, masks, settings.image_size),
        lambda: _build([*zip(jobs, sought, strict=True)], settings, folder, progress),
    )
    _refuse_overlap(patients, jobs, store, settings)
    store.use([patient.split for patient in patients], settings)
    _warn(store, settings, [_files(*each) for each in zip(jobs, sought, strict=True)])
    return store


def _warn(store: SliceStore, settings: DataSettings, files: Sequence[concerns.Files]) -> None:
    """Say what is odd about a cohort, whenever its store is opened."""
    if found := consistency.across_thick(store.voxel.tolist(), settings.axis):
        warn(f"data: {found[0]}. {found[1]}.")
    if settings.val_fraction and not len(store.select("val")):
        warn("data: no slice is for validation, so no best.pt is written. Add patients, or raise data.val_fraction.")
    for line in concerns.lines(store.figures, files, store.lesion_area):
        warn(line)


def _read_index(folder: Path) -> Index:
    try:
        with np.load(folder / "index.npz") as arrays:
            return Index(**arrays)
    except UNREADABLE as error:
        raise cache_folder.Damaged(f"index.npz: {error}") from None


# Finding


def sources(settings: DataSettings, patient: Patient, channels: Sequence[str], masks: frozenset[str]) -> list[Channel]:
    return [
        Channel.of(
            patient.files[layouts.source(settings, channel)],
            layouts.mask(settings, channel) if channel in masks else None,
        )
        for channel in channels
    ]


def _files(sources: Sequence[Channel], sought: Sought) -> concerns.Files:
    return concerns.Files([source.path for source in sources], sought.scans)


def _refuse_overlap(
    patients: Sequence[Patient], jobs: Sequence[list[Channel]], store: SliceStore, settings: DataSettings
) -> None:
    """Scans tell patients apart; where there are only masks, masks do."""
    if settings.allow_patient_overlap:
        return
    images = [number for number, channel in enumerate(store.channels) if channel not in store.masks]
    scans = []
    for row, (patient, job) in enumerate(zip(patients, jobs, strict=True)):
        for number in images or range(len(store.channels)):
            sketch = unpacked(store.likeness[row]) if images[:1] == [number] else None
            content = store.content[row, number].decode()
            scans.append(consistency.Scan(patient.id, patient.split, job[number].path, content, sketch))
    if faults := [fault.line() for fault in consistency.overlaps(scans)]:
        raise DataError(faults)


def _key(
    settings: DataSettings,
    channels: Sequence[str],
    jobs: Iterable[Sequence[Channel]],
    sought: Sequence[Sought],
    cache: Path,
) -> str:
    """Everything that decides what is in a store: the content of its sources, and how they are made into slices."""
    paths = [source.path for job in jobs for source in job] + [scan for each in sought for scan in each.scans]
    found = digests(dict.fromkeys(paths), cache)
    how = [FORMAT, settings.axis, settings.image_size, settings.spacing, settings.lower, settings.upper, settings.nan]
    what = [[(found[source.path], source.labels) for source in job] for job in jobs]
    where = [[each.known, *(found[scan] for scan in each.scans)] for each in sought]
    return hashlib.sha256(json.dumps([how, list(channels), what, where]).encode()).hexdigest()[:32]


def digests(paths: Iterable[Path], cache: Path) -> dict[Path, str]:
    """sha256 of each file, remembered for files that have not changed since."""
    memory = Memory(cache / "digests.json")
    found = {path: memory.recall(path) for path in paths}
    unknown, problems = [path for path, digest in found.items() if digest is None], []
    with ThreadPoolExecutor(min(8, processes.count_cores())) as threads:
        for path, result in zip(unknown, threads.map(_digest, unknown), strict=True):
            if isinstance(result, str):
                found[path] = result
                memory.remember(path, result)
            else:
                problems += result
    if problems:
        raise DataError(problems)
    memory.save()
    return found


def _digest(path: Path) -> str | list[str]:
    try:
        return stream.digest(path)
    except DataError as error:
        return error.problems


# Making


class _Job(NamedTuple):
    """A patient, for a worker process. settings: with the spacing. part: a prefix for the files it writes."""

    sources: list[Channel]
    sought: Sought
    head: Head
    settings: DataSettings
    part: Path


def _build(
    wanted: Sequence[tuple[list[Channel], Sought]], settings: DataSettings, folder: Path, progress: Progress | None
) -> None:
    """Look at all heads, as they decide the spacing, then cut every patient. wanted: each one's files and scan."""
    tell, count = progress or (lambda done, total: None), len(wanted)
    tell(0, 2 * count)
    found = heads.find([sought for _, sought in wanted], folder.parent, lambda done: tell(done, 2 * count))
    settings = attrs.evolve(settings, spacing=spacing.choose(settings, found))
    with cache_folder.building(folder) as made, cache_folder.beside(folder) as parts:
        jobs = [
            _Job(sources, sought, head, settings, Path(parts, str(number)))
            for number, ((sources, sought), head) in enumerate(zip(wanted, found, strict=True))
        ]
        _fill(made, jobs, lambda done: tell(count + done, 2 * count))


def _fill(folder: Path, jobs: Sequence[_Job], tell: Callable[[int], None]) -> None:
    faults: list[Fault] = []
    parts: list[Slices] = []
    with contextlib.ExitStack() as stack, processes.results(_make, jobs, _workers(jobs)) as results:
        opened = [stack.enter_context((folder / str(n)).open("wb")) for n in range(len(jobs[0].sources))]
        for done, (job, result) in enumerate(zip(jobs, results, strict=True), start=1):
            if isinstance(result, Slices):
                parts.append(result)
                for number, file in enumerate(opened):
                    _append(Path(f"{job.part}-{number}"), file)
            else:
                faults += result
            tell(done)
        for file in opened:
            files.flush(file)
    if faults:
        raise ScanError(merge_alike(faults, len(jobs)))
    crc = [cache_folder.checksum(folder / str(number)) for number in range(len(jobs[0].sources))]
    with (folder / "index.npz").open("wb") as file:
        np.savez(file, **_index(parts, jobs, crc)._asdict())
        files.flush(file)


def _append(part: Path, file: BinaryIO) -> None:
    with part.open("rb") as source:
        shutil.copyfileobj(source, file, 1 << 20)
    part.unlink()


def _index(parts: Sequence[Slices], jobs: Sequence[_Job], crc: Sequence[int]) -> Index:
    axis = AXES.index(jobs[0].settings.axis)
    return Index(
        patient=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.position) for part in parts]),
        position=np.concatenate([part.position for part in parts]),
        foreground=np.concatenate([part.foreground for part in parts]),
        area=np.concatenate([part.area for part in parts]),
        spacing=np.array(jobs[0].settings.spacing),
        content=np.array([part.content for part in parts], "S64"),
        voxel=np.array([part.voxel for part in parts]),
        likeness=np.stack([part.likeness for part in parts]),
        background=np.array([part.background for part in parts], "S"),
        crc=np.array(crc, np.uint32),
        lesions=np.stack([part.lesions for part in parts]),
        lost=np.concatenate([part.lost for part in parts]),
        air=np.stack([part.air for part in parts]),
        cut_off=np.array([part.cut_off for part in parts]),
        width=np.array([job.head.width(axis) if job.head.filled else np.nan for job in jobs]),
        covered=np.stack([part.covered for part in parts]),
    )


# In worker processes


def _workers(jobs: Sequence[_Job]) -> int:
    paths = {source.path for job in jobs for source in job.sources}
    return processes.count_workers(paths, len(jobs), jobs[0].settings.workers)


def _make(job: _Job) -> Slices | list[Fault]:
    """Cut a patient into slices and write them to files of its own, or tell what is wrong."""
    result = cut(job.sources, job.settings, job.head)
    if not isinstance(result, Slices):
        return result
    if faults := concerns.faults(result.air, _files(job.sources, job.sought)):
        return faults
    for number, stack in enumerate(result.stacks):
        np.ascontiguousarray(stack).tofile(f"{job.part}-{number}")
    return result._replace(stacks=[])
