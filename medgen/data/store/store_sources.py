"""The files that a patient's slices are made of, and their content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medgen.api.tables import DataSettings
from medgen.data.scans import layouts
from medgen.data.scans.layouts import Patient
from medgen.data.scans.nifti import stream
from medgen.data.store import concerns, processes
from medgen.data.store.file_memo import Memory
from medgen.data.store.patient_heads import Sought
from medgen.data.store.preprocess import Channel
from medgen.errors import DataError, Problem


def sources(
    settings: DataSettings, patient: Patient, channels: Sequence[str], masks: frozenset[str]
) -> list[Channel]:
    return [
        Channel.of(
            patient.files[layouts.source(settings, channel)],
            layouts.mask(settings, channel) if channel in masks else None,
        )
        for channel in channels
    ]


def files_of(sources: Sequence[Channel], sought: Sought) -> concerns.Files:
    return concerns.Files([source.path for source in sources], sought.scans)


def digests(paths: Iterable[Path], cache: Path) -> dict[Path, str]:
    """Return sha256 of each file, remembered for files that have not changed since."""
    memory = Memory(cache / "digests.json")
    every = {path: memory.recall(path) for path in paths}
    found = {path: digest for path, digest in every.items() if isinstance(digest, str)}
    unknown = [path for path in every if path not in found]
    problems: list[Problem] = []
    with ThreadPoolExecutor(min(8, processes.count_cores())) as threads:
        for path, result in zip(unknown, threads.map(_digest, unknown), strict=True):
            if isinstance(result, str):
                found[path] = result
                memory.remember(path, result)
            else:
                problems += result
    if problems:
        raise DataError(*problems)
    memory.save()
    return {path: found[path] for path in every}


def _digest(path: Path) -> str | tuple[Problem, ...]:
    try:
        return stream.digest(path)
    except DataError as error:
        return error.problems
