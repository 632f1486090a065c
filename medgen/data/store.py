"""The slice store: every slice of a cohort, ready to train on, in memory-mapped arrays that are found again by content.

A store is a folder `slices-<key>` with a raw array `[slice, size, size]` per channel (float16 images, uint8 masks) and
`index.npz`. It holds no names and no paths: patients are numbers, in the order of `layouts.find`. Which slices are used
is decided when it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import platformdirs

from medgen.data import layouts, nifti
from medgen.data.layouts import SPLITS, Patient, Split
from medgen.data.settings import DataSettings
from medgen.data.slices import Channel, Slices, cut
from medgen.errors import DataError, OutOfMemoryError, RecipeError, StorageError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Part of the key: raise it with any change of what a slice is."""
BYTES_PER_WORKER = 8 << 20
"""Less than this, and starting another process takes longer than the work."""
SETTLED = 2.0
"""Seconds since a file was last changed, from which on its times tell a later change."""
ABANDONED = 24 * 3600.0
"""Seconds after which a folder of a build that never ended is removed."""

ALONE = 1 << 15
"""Values that torch copies without sharing them out to its threads, which a busy machine lets wait for each other."""

Progress = Callable[[int, int], None]
log = logging.getLogger("medgen")


class Index(NamedTuple):
    """What is known of each slice. Arrays over slices, `area` `[slice, mask]`; spacing: mm per pixel, over patients."""

    patient: np.ndarray
    position: np.ndarray
    foreground: np.ndarray
    area: np.ndarray
    spacing: np.ndarray


class SliceStore:
    """Slices of a cohort. Rows number all of them; `select` gives those that are used. Safe to read from any thread.

    spacing: mm per pixel, mean over patients. fingerprint: equal for the same slices in the same splits. patient:
    number of each row's patient. position: of each row along the axis, voxels. lesion_area: by mask, px of each row.
    """

    def __init__(self, folder: Path, key: str, channels: Sequence[str], masks: frozenset[str], size: int):
        self.channels, self.masks, self.size = tuple(channels), masks & set(channels), size
        index = _read_index(folder)
        self.spacing = float(index.spacing.mean())
        self.patient, self.position, self.foreground = index.patient, index.position, index.foreground
        names = [channel for channel in self.channels if channel in self.masks]
        self.lesion_area = dict(zip(names, index.area.T, strict=True))
        self._arrays = {channel: self._map(folder, number) for number, channel in enumerate(self.channels)}
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
        """`[row, channel, size, size]` float32 in [-1, 1], masks at -1 and 1."""
        import torch

        out = np.empty((len(rows), len(channels), self.size * self.size), np.float32)
        target = torch.from_numpy(out)
        for number, channel in enumerate(channels):
            source = self._arrays[channel]
            for place, row in enumerate(np.asarray(rows).tolist()):
                _convert(target[place, number], source[row])
            if channel in self.masks:
                out[:, number] *= 2
                out[:, number] -= 1
        return out.reshape(len(rows), len(channels), self.size, self.size)

    def use(self, splits: Sequence[Split], settings: DataSettings) -> None:
        """Decide which rows are used. splits: of each patient. Raises `DataError` if none is left to train on."""
        split = np.array(splits)[self.patient]
        excluded = self._excluded(settings)
        used = ~np.any([*excluded.values()], axis=0)
        self._rows = {name: np.flatnonzero(used & (split == name)) for name in SPLITS}
        if not len(self._rows["train"]):
            train = split == "train"
            counts = [f"{key} excludes {np.count_nonzero(rows & train)}" for key, rows in excluded.items()]
            what = f"none of the {np.count_nonzero(train)} training slices is used, {', '.join(counts)}"
            raise DataError(f"data: {what}. Change these settings, or add patients.")

    def _excluded(self, settings: DataSettings) -> dict[str, np.ndarray]:
        excluded = {f"data.min_foreground = {settings.min_foreground:g}": self.foreground < settings.min_foreground}
        if settings.lesion_only:
            largest = np.max([*self.lesion_area.values()], axis=0)
            excluded[f"data.lesion_only with data.min_lesion = {settings.min_lesion}"] = largest < settings.min_lesion
        return excluded

    def _map(self, folder: Path, number: int) -> Tensor:
        """A channel as `[row, size * size]`, never to be written to."""
        import torch

        kind = np.uint8 if self.channels[number] in self.masks else np.float16
        shape = (len(self), self.size * self.size)
        path, expected = folder / str(number), int(np.prod(shape)) * np.dtype(kind).itemsize
        if path.stat().st_size != expected:
            raise _Damaged(f"{path.name} has {path.stat().st_size:,} bytes instead of {expected:,}")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(np.memmap(path, kind, "r", shape=shape))


def _convert(target: Tensor, source: Tensor) -> None:
    """Copy one row as float32: torch is five times as fast as NumPy, as long as its threads need not meet."""
    for start in range(0, len(source), ALONE):
        target[start : start + ALONE].copy_(source[start : start + ALONE])


def open_store(
    settings: DataSettings,
    channels: Sequence[str],
    masks: frozenset[str],
    progress: Progress | None = None,
    cache: Path | None = None,
) -> SliceStore:
    """The slices of a cohort, from the cache or, the first time, made from the scans by several processes.

    progress: called with the patients done and the number of patients. cache: the folder for stores, `$MEDGEN_CACHE` or
    the user's cache folder if not given. Raises `DataError` with a line per problem, `StorageError` if the cache cannot
    be written, `RecipeError` if lesions are asked for where no channel is a mask.
    """
    channels = tuple(dict.fromkeys(channels))
    if settings.lesion_only and not masks & set(channels):
        what = f"is true, but no mask is among the channels ({', '.join(channels)})"
        raise RecipeError(f"data.lesion_only: {what}. Set it to false, or use a mode with a mask.")
    cache = cache or cache_folder()
    patients = layouts.find(settings, channels)
    jobs = [_sources(settings, patient, channels, masks) for patient in patients]
    key = _key(settings, channels, jobs, _digests([source.path for job in jobs for source in job], cache))
    folder = cache / f"slices-{key}"
    store = _open(folder, key, channels, masks, settings.image_size)
    if store is None:
        _build(jobs, settings, folder, progress)
        store = SliceStore(folder, key, channels, masks, settings.image_size)
    store.use([patient.split for patient in patients], settings)
    return store


def cache_folder() -> Path:
    """Where stores are kept: `$MEDGEN_CACHE`, else `medgen` in the user's cache folder."""
    own = os.environ.get("MEDGEN_CACHE")
    return layouts.expand(Path(own)) if own else platformdirs.user_cache_path("medgen")


class _Damaged(Exception):
    """A store that cannot be used; it is made again."""


def _open(folder: Path, key: str, channels: Sequence[str], masks: frozenset[str], size: int) -> SliceStore | None:
    if not folder.exists():
        return None
    try:
        return SliceStore(folder, key, channels, masks, size)
    except (_Damaged, OSError) as error:
        log.warning("%s: the slice store is damaged (%s). It is made again.", folder, error)
        _discard(folder)
        return None


def _read_index(folder: Path) -> Index:
    try:
        with np.load(folder / "index.npz") as arrays:
            return Index(**arrays)
    except (zipfile.BadZipFile, ValueError, TypeError, EOFError) as error:
        raise _Damaged(f"index.npz: {error}") from None


# Finding


def _sources(settings: DataSettings, patient: Patient, channels: Sequence[str], masks: frozenset[str]) -> list[Channel]:
    return [
        Channel.of(
            patient.files[layouts.source(settings, channel)],
            layouts.mask(settings, channel) if channel in masks else None,
        )
        for channel in channels
    ]


def _key(
    settings: DataSettings, channels: Sequence[str], jobs: Iterable[Sequence[Channel]], digests: dict[Path, str]
) -> str:
    """Everything that decides what is in a store: the content of its sources, and how they are made into slices."""
    how = [FORMAT, settings.axis, settings.image_size, settings.lower, settings.upper, settings.nan, list(channels)]
    what = [[(digests[source.path], source.labels) for source in job] for job in jobs]
    return hashlib.sha256(json.dumps([how, what]).encode()).hexdigest()[:32]


def _digests(paths: Iterable[Path], cache: Path) -> dict[Path, str]:
    """sha256 of each file, remembered for files that have not changed since."""
    memory = cache / "digests.json"
    known = _remembered(memory)
    stamps = {path: _stamp(path) for path in paths}
    unknown = [path for path, stamp in stamps.items() if stamp not in known]
    found, problems = {}, []
    with ThreadPoolExecutor(min(8, _cores())) as pool:
        for path, result in zip(unknown, pool.map(_digest, unknown), strict=True):
            if isinstance(result, str):
                found[path] = result
            else:
                problems += result
    if problems:
        raise DataError(problems)
    _remember(memory, {stamps[path]: digest for path, digest in found.items() if _settled(path)})
    return {path: found.get(path) or known[stamp] for path, stamp in stamps.items()}


def _digest(path: Path) -> str | list[str]:
    try:
        return nifti.digest(path)
    except DataError as error:
        return error.problems


def _stamp(path: Path) -> str:
    """What changes whenever a file does; hashed, as names of files can be names of patients."""
    try:
        stat = path.stat()
    except OSError:  # the gate says what is wrong with it
        return str(path)
    parts = (path.absolute(), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _settled(path: Path) -> bool:
    """A file that is changed twice within one tick of its clock shows the same times."""
    stat = path.stat()
    return time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED


def _remembered(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(memory: Path, found: dict[str, str]) -> None:
    """Remembering saves time and nothing else, so a cache that cannot be written is no fault here."""
    if not found:
        return
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memory.parent, prefix=".digests-", delete=False) as file:
            json.dump(_remembered(memory) | found, file)
        os.replace(file.name, memory)


# Making


class _Job(NamedTuple):
    """A patient, for a worker process. part: a prefix for the files it writes."""

    sources: list[Channel]
    settings: DataSettings
    part: Path


def _build(sources: Sequence[list[Channel]], settings: DataSettings, folder: Path, progress: Progress | None) -> None:
    """Make a store beside its final place, then rename it; if another process was faster, use that one's."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with tempfile.TemporaryDirectory(
            prefix=".building-", dir=folder.parent, ignore_cleanup_errors=True
        ) as temporary:
            made = Path(temporary, "store")
            made.mkdir()
            jobs = [_Job(each, settings, Path(temporary, str(number))) for number, each in enumerate(sources)]
            _fill(made, jobs, progress)
            _publish(made, folder)
    except OSError as error:
        what = f"the slice store cannot be written ({error.strerror or error})"
        raise StorageError(f"{folder.parent}: {what}. Make room, or set MEDGEN_CACHE to another folder.") from None


def _sweep(cache: Path) -> None:
    for folder in cache.glob(".building-*"):
        if time.time() - folder.stat().st_mtime > ABANDONED:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _discard(folder: Path) -> None:
    """Rename first: a process that has the store open goes on reading it, and no other finds half of it."""
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent, ignore_cleanup_errors=True) as temporary:
        folder.rename(Path(temporary, "damaged"))


def _fill(folder: Path, jobs: Sequence[_Job], progress: Progress | None) -> None:
    problems: list[str] = []
    parts: list[Slices] = []
    if progress:
        progress(0, len(jobs))
    with contextlib.ExitStack() as stack, _results(jobs) as results:
        files = [stack.enter_context((folder / str(n)).open("wb")) for n in range(len(jobs[0].sources))]
        for done, (job, result) in enumerate(zip(jobs, results, strict=True), start=1):
            if isinstance(result, Slices):
                parts.append(result)
                for number, file in enumerate(files):
                    _append(Path(f"{job.part}-{number}"), file)
            else:
                problems += result
            if progress:
                progress(done, len(jobs))
        for file in files:
            file.flush()
            os.fsync(file.fileno())  # else a crash may leave the renamed store with blocks of zeros
    if problems:
        raise DataError(problems)
    np.savez(folder / "index.npz", **_index(parts)._asdict())


def _append(part: Path, file: BinaryIO) -> None:
    with part.open("rb") as source:
        shutil.copyfileobj(source, file, 1 << 20)
    part.unlink()


def _index(parts: Sequence[Slices]) -> Index:
    return Index(
        patient=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.position) for part in parts]),
        position=np.concatenate([part.position for part in parts]),
        foreground=np.concatenate([part.foreground for part in parts]),
        area=np.concatenate([part.area for part in parts]),
        spacing=np.array([part.spacing for part in parts]),
    )


# In worker processes


@contextlib.contextmanager
def _results(jobs: Sequence[_Job]) -> Iterator[Iterator[Slices | list[str]]]:
    """What `_make` gives for each job, in order, made ahead by as many processes as pay."""
    workers = _workers(jobs)
    if workers == 1:
        yield map(_make, jobs)
        return
    # A fork would copy the locks that other threads hold; and Ctrl-C is for this process alone to answer.
    spawn, ignore = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=signal.signal, initargs=ignore)
    try:
        yield pool.map(_make, jobs)
    except (BrokenProcessPool, MemoryError):
        what = f"one of the {workers} processes that fill the slice store ended, most likely for lack of memory"
        raise OutOfMemoryError(f"data.workers: {what}. Set data.workers lower.") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _workers(jobs: Sequence[_Job]) -> int:
    size = sum(source.path.stat().st_size for job in jobs for source in job.sources)
    return min(len(jobs), jobs[0].settings.workers or min(_cores(), 1 + size // BYTES_PER_WORKER))


def _cores() -> int:
    """The cores this process may use; on a cluster fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make(job: _Job) -> Slices | list[str]:
    """Cut a patient into slices and write them to files of its own, or tell what is wrong."""
    result = cut(job.sources, job.settings)
    if not isinstance(result, Slices):
        return result
    for number, stack in enumerate(result.stacks):
        np.ascontiguousarray(stack).tofile(f"{job.part}-{number}")
    return result._replace(stacks=[])
