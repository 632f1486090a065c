"""Make a slice store from scans, a patient at a time, by several processes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import attrs
import numpy as np

from medgen.api.tables import AXES, DataSettings
from medgen.data.scans.nifti.alike import merge_alike
from medgen.data.store import cache_folder, concerns, patient_heads, processes, spacing
from medgen.data.store.head import Head
from medgen.data.store.patient_heads import Sought
from medgen.data.store.preprocess import Channel, Slices, cut
from medgen.data.store.store_index import Index
from medgen.data.store.store_sources import files_of
from medgen.errors import DataError, Problem
from medgen.system import files

Progress = Callable[[int, int], None]


class Job(NamedTuple):
    """A patient, for a worker process. settings: with the spacing. part: a prefix for its files."""

    sources: list[Channel]
    sought: Sought
    head: Head
    settings: DataSettings
    part: Path


def build(
    wanted: Sequence[tuple[list[Channel], Sought]],
    settings: DataSettings,
    folder: Path,
    progress: Progress | None,
) -> None:
    """Look at all heads, as they decide the spacing, then cut every patient. wanted: each one's
    files and scan.
    """
    tell, count = progress or (lambda done, total: None), len(wanted)
    tell(0, 2 * count)
    found = patient_heads.find(
        [sought for _, sought in wanted], folder.parent, lambda done: tell(done, 2 * count)
    )
    settings = attrs.evolve(settings, spacing=spacing.choose(settings, found))
    with cache_folder.building(folder) as made, cache_folder.beside(folder) as parts:
        jobs = [
            Job(sources, sought, head, settings, Path(parts, str(number)))
            for number, ((sources, sought), head) in enumerate(zip(wanted, found, strict=True))
        ]
        _fill(made, jobs, lambda done: tell(count + done, 2 * count))


def _fill(folder: Path, jobs: Sequence[Job], tell: Callable[[int], None]) -> None:
    faults: list[Problem] = []
    parts: list[Slices] = []
    with contextlib.ExitStack() as stack, processes.results(_make, jobs, _workers(jobs)) as results:
        opened = [
            stack.enter_context((folder / str(n)).open("wb")) for n in range(len(jobs[0].sources))
        ]
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
        raise DataError(*merge_alike(faults, len(jobs)))
    if jobs[0].settings.crop != "none" and not any(len(part.position) for part in parts):
        what = f"none of {len(jobs)} patients has a lesion to cut crops around"
        raise DataError(
            Problem("data.crop", what, "Look at the masks and their labels in data.masks")
        )
    crc = [cache_folder.checksum(folder / str(number)) for number in range(len(jobs[0].sources))]
    with (folder / "index.npz").open("wb") as file:
        index = _index(parts, jobs, crc)._asdict()
        np.savez(file, **{name: each for name, each in index.items() if each is not None})
        files.flush(file)


def _append(part: Path, file: BinaryIO) -> None:
    with part.open("rb") as source:
        shutil.copyfileobj(source, file, 1 << 20)
    part.unlink()


def _index(parts: Sequence[Slices], jobs: Sequence[Job], crc: Sequence[int]) -> Index:
    axis = AXES.index(jobs[0].settings.axis)
    return Index(
        patient=np.repeat(
            np.arange(len(parts), dtype=np.int32), [len(part.position) for part in parts]
        ),
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
        **_of_crops(parts, jobs[0].settings),
    )


def _of_crops(parts: Sequence[Slices], settings: DataSettings) -> dict[str, np.ndarray]:
    """What slices have not."""
    if settings.crop == "none":
        return {}
    return {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("place", "extent")
    }


def _workers(jobs: Sequence[Job]) -> int:
    paths = {source.path for job in jobs for source in job.sources}
    return processes.count_workers(paths, len(jobs), jobs[0].settings.workers)


def _make(job: Job) -> Slices | list[Problem]:
    """Cut a patient into slices and write them to files of its own, or tell what is wrong."""
    result = cut(job.sources, job.settings, job.head)
    if not isinstance(result, Slices):
        return result
    if faults := concerns.faults(result.air, files_of(job.sources, job.sought)):
        return faults
    for number, stack in enumerate(result.stacks):
        np.ascontiguousarray(stack).tofile(f"{job.part}-{number}")
    return result._replace(stacks=[])
