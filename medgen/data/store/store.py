"""The slice store: every slice of a cohort, or every volume, ready to train on, in memory-mapped
arrays that are found again by content.

A store is a folder `slices-<key>`, or `volumes-<key>`, with a raw array `[slice, *size]` per
channel (float16 images, uint8 masks) and `index.npz`. It holds no names and no paths: patients are
numbers, in the order of `layouts.find`. Which slices are used is decided when it is opened.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from medgen.api.tables import DataSettings
from medgen.data.scans import consistency, layouts
from medgen.data.scans.layouts import Patient
from medgen.data.scans.likeness import unpacked
from medgen.data.store import cache_folder, concerns, crops, patient_heads
from medgen.data.store.file_memo import cache_root
from medgen.data.store.patient_heads import Sought
from medgen.data.store.preprocess import Channel
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store_building import Progress, build
from medgen.data.store.store_sources import digests, files_of, sources
from medgen.errors import DataError, Problem, RecipeError
from medgen.system.console import warn

FORMAT, FORMAT_VOLUMES = 4, 1
"""Part of the key: raise it with any change of what a slice, or a volume, is."""


def open_store(
    settings: DataSettings,
    channels: Sequence[str],
    masks: frozenset[str],
    progress: Progress | None = None,
    cache: Path | None = None,
) -> SliceStore:
    """Open the slices or volumes of a cohort, first made from its scans by several processes.

    progress: called with the steps done and their number, two for each patient. cache: the folder
    for stores, `$MEDGEN_CACHE` or the user's cache folder if not given. Raises `DataError` with a
    line per problem, `StorageError` if the cache cannot be written, `RecipeError` if lesions are
    asked for where no channel is a mask.
    """
    channels = tuple(dict.fromkeys(channels))
    _require_masks(settings, channels, masks)
    cache = cache or cache_root()
    patients = layouts.find(settings, channels, warn)
    jobs = [sources(settings, patient, channels, masks) for patient in patients]
    sought = patient_heads.seek(settings, patients, [job[0].path for job in jobs])
    key = _key(settings, channels, jobs, sought, cache)
    folder = cache / f"{settings.noun}-{key}"
    store = cache_folder.open_or_make(
        folder,
        "the slice store",
        lambda: SliceStore(folder, key, channels, masks, settings),
        lambda: build([*zip(jobs, sought, strict=True)], settings, folder, progress),
    )
    _refuse_overlap(patients, jobs, store, settings)
    store.person = np.unique([each.person for each in patients], return_inverse=True)[1]
    store.find_heads = functools.partial(patient_heads.find, sought, cache)
    store.use([patient.split for patient in patients], settings)
    _warn(store, settings, [files_of(*each) for each in zip(jobs, sought, strict=True)])
    return store


def _require_masks(settings: DataSettings, channels: Sequence[str], masks: frozenset[str]) -> None:
    """Raise RecipeError if lesions are asked for where no channel is a mask."""
    if masks & set(channels):
        return
    listed = f"but no mask is among the channels ({', '.join(channels)})"
    if settings.lesion_only:
        raise RecipeError(
            Problem(
                "data.lesion_only",
                f"is true, {listed}",
                "Set it to false, or use a mode with a mask",
            )
        )
    if settings.lesion_patches:
        what = f"is {settings.lesion_patches:g}, {listed}"
        raise RecipeError(Problem("data.lesion_patches", what, "Use a mode with a mask"))
    if settings.crop != "none":
        what = f'is "{settings.crop}", {listed}'
        raise RecipeError(Problem("data.crop", what, 'Set it to "none", or use a mode with a mask'))


def _warn(store: SliceStore, settings: DataSettings, files: Sequence[concerns.Files]) -> None:
    """Say what is odd about a cohort, whenever its store is opened."""
    axis = store.grid.axis  # volumes are not cut
    if axis and (found := consistency.across_thick(store.voxel.tolist(), axis)):
        warn(f"data: {found[0]}. {found[1]}.")
    if settings.val_fraction and not len(store.select("val")):
        what = f"no {settings.noun[:-1]} is for validation, so no best.pt is written"
        warn(f"data: {what}. Add patients, or raise data.val_fraction.")
    for line in concerns.lines(store.figures, files, store.lesion_area):
        warn(line)
    side = min(store.grid.shape)
    if store.extent is not None and (large := np.count_nonzero(store.extent > side)):
        crop = f"{side} px of {store.grid.spacing[0]:g} mm"
        what = f"{large:,} of {len(store):,} lesions in {settings.noun} are larger than crops of {crop}, and are left out"
        warn(f"data: {what}. Set data.image_size={store.extent.max()} for all of them.")


def _refuse_overlap(
    patients: Sequence[Patient],
    jobs: Sequence[list[Channel]],
    store: SliceStore,
    settings: DataSettings,
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
            scans.append(
                consistency.Scan(patient.id, patient.split, job[number].path, content, sketch)
            )
    if faults := [*consistency.overlaps(scans)]:
        raise DataError(*faults)


def _key(
    settings: DataSettings,
    channels: Sequence[str],
    jobs: Iterable[Sequence[Channel]],
    sought: Sequence[Sought],
    cache: Path,
) -> str:
    """Everything that decides what is in a store: the content of its sources, and how they are made
    into slices.
    """
    paths = [source.path for job in jobs for source in job] + [
        scan for each in sought for scan in each.scans
    ]
    found = digests(dict.fromkeys(paths), cache)
    sample = (
        [FORMAT, settings.axis, settings.shape[0]]
        if settings.axes == 2
        else [FORMAT_VOLUMES, "volumes", settings.shape]
    )
    how = [
        *sample,
        settings.spacing,
        settings.lower,
        settings.upper,
        settings.nan,
    ]
    how += [] if settings.crop == "none" else [settings.crop, crops.FORMAT]
    how += [f"headroom {settings.headroom:g}"] if settings.headroom else []
    what = [[(found[source.path], source.labels) for source in job] for job in jobs]
    where = [[each.known, *(found[scan] for scan in each.scans)] for each in sought]
    return hashlib.sha256(json.dumps([how, list(channels), what, where]).encode()).hexdigest()[:32]
