"""Patients to take lesions from or put them into: of any layout, read as training reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np

from medgen.api.tables import DataSettings
from medgen.data.scans import layouts
from medgen.data.scans.consistency import Place, mismatches
from medgen.data.scans.nifti import gate
from medgen.data.scans.nifti.gate import Raw, Volume
from medgen.data.store.foreground.detect import foreground
from medgen.data.store.foreground.head_in_noise import large_parts
from medgen.data.store.nifti_writer import WHITE
from medgen.data.store.patient_heads import KNOWN
from medgen.data.store.preprocess import Channel, binary, flat, window
from medgen.errors import DataError, Problem

Array = np.ndarray[Any, np.dtype[Any]]


class Files(NamedTuple):
    """What is read of a patient. person: as splits are drawn by. images, masks: those that there are, by name."""

    id: str
    person: str
    images: dict[str, Path]
    masks: dict[str, Channel]

    @property
    def paths(self) -> list[Path]:
        """Every file once."""
        return list(dict.fromkeys([*self.images.values(), *_mask_paths(self)]))


@attrs.frozen(eq=False)
class Case:
    """A patient's scans in canonical orientation.

    images: float32 `[channel, x, y, z]`, 0 and 1 at the two percentiles of the head that training
    takes for -1 and 1, not clipped; 0 around the head. head: bool `[x, y, z]`. masks: likewise, by name.
    labels: whole numbers `[x, y, z]`, of the file that all masks are of; None if there are several or
    none. windows: the two percentiles of each channel. raws: the files as they are. spacing: mm along
    each axis. place: where the voxels are.
    """

    files: Files
    images: Array
    head: Array
    masks: dict[str, Array]
    labels: Array | None
    windows: tuple[tuple[float, float], ...]
    raws: tuple[Raw, ...]
    spacing: tuple[float, ...]
    place: Place

    @cached_property
    def lesion(self) -> Array:
        """Every voxel of any mask, bool `[x, y, z]`."""
        return _any(self.masks, self.head.shape)


def find(
    data: DataSettings,
    images: Sequence[str] | None,
    masked: bool,
    masks: Sequence[str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Files]:
    """Find the patients to train on, ordered by id. Raises DataError with a line per problem.

    images: the names that each must have; None: those that each has. masked: each must have its
    masks too. masks: which, in order; None for all. tell: called with a line if there are others than those
    to train on.
    """
    names = mask_names(data, masks)
    sources = [layouts.source(data, name) for name in names]
    wanted = [] if images is None else [layouts.source(data, name) for name in images]
    sought = [*dict.fromkeys([*data.files, *KNOWN])] if images is None else []
    found = layouts.survey(data, [*wanted, *(sources if masked else [])], [*sought, *sources])
    if found.faults:
        raise DataError(*found.faults)
    patients = [each for each in found.patients if each.split == "train"]
    if tell and len(patients) < len(found.patients):
        tell(_apart(data, len(found.patients), len(patients)))
    if images is None:
        images = _shared([name for name in sought if name not in sources], patients)
    if not images:
        what = "its patients have no image in common that medgen knows"
        fix = "Set data.files.NAME to a pattern of the image's files"
        raise DataError(Problem(data.root, what, fix))
    return [_files(each, images, names, data) for each in patients]


def mask_names(data: DataSettings, masks: Sequence[str] | None) -> list[str]:
    """List the masks that are read, all of the data if none are named."""
    return list(masks) if masks else sorted(layouts.mask_names(data))


def _apart(data: DataSettings, count: int, kept: int) -> str:
    what = f"{count - kept} of {count} patients are for validation or test, and are left out"
    return f"{data.root}: {what}. Set data.val_fraction=0 to use those that no folder sets apart."


def _shared(names: Sequence[str], patients: Sequence[layouts.Patient]) -> list[str]:
    """List the names that each patient has a file of."""
    return [name for name in names if all(name in each.files for each in patients)]


def _files(
    patient: layouts.Patient,
    images: Sequence[str],
    masks: Sequence[str],
    data: DataSettings,
) -> Files:
    given = {name: layouts.source(data, name) for name in masks}
    there = [name for name in masks if given[name] in patient.files]
    channels = {
        name: Channel.of(patient.files[given[name]], layouts.mask(data, name)) for name in there
    }
    files = {name: patient.files[layouts.source(data, name)] for name in images}
    return Files(patient.id, patient.person, files, channels)


def read(files: Files, data: DataSettings, tissue: bool = False) -> Case:
    """Read a patient. Raises DataError if a file is faulty, or two are not of one grid.

    tissue: take the percentiles of what is no lesion, so that heads with many and with few have one scale; training,
    which a model has to follow, takes those of the whole head.
    """
    raws = [gate.read_raw(path, data.max_voxels, nan=data.nan) for path in files.images.values()]
    first = raws[0].volume
    places = [
        Place(path, raw.volume.data.shape, raw.volume.affine)
        for path, raw in zip(files.images.values(), raws, strict=True)
    ]
    volumes = _mask_volumes(files, data)
    places += [Place(path, volume.data.shape, volume.affine) for path, volume in volumes.items()]
    if wrong := [fault for each in places[1:] for fault in mismatches(places[0], each)]:
        raise DataError(*wrong)
    masks = {
        name: binary(volumes[mask.path].data, mask.labels or ())
        for name, mask in files.masks.items()
    }
    inside = [foreground(raw.volume.data) for raw in raws]
    lesion = _any(masks, first.data.shape)
    counted = [_tissue(each, lesion) if tissue else each for each in inside]
    windows = [
        _window(*each, data) for each in zip(files.images.values(), raws, counted, strict=True)
    ]
    images = [_scaled(*each) for each in zip(raws, inside, windows, strict=True)]
    return Case(
        files,
        images=np.stack(images),
        head=large_parts(inside[0]),
        masks=masks,
        labels=_labels([*volumes.values()]) if len(masks) > 1 else None,
        windows=tuple(windows),
        raws=tuple(raws),
        spacing=first.spacing,
        place=places[0],
    )


def _mask_volumes(files: Files, data: DataSettings) -> dict[Path, Volume]:
    """Read every file of masks once."""
    return {
        path: gate.read(path, data.max_voxels, nan=data.nan, mask=True)
        for path in _mask_paths(files)
    }


def _labels(volumes: Sequence[Volume]) -> Array | None:
    """Return the labels of the one file of masks that there is."""
    return np.rint(volumes[0].data).astype(np.uint16) if len(volumes) == 1 else None


def _any(masks: Mapping[str, Array], shape: Sequence[int]) -> Array:
    """Return every voxel of any mask, bool of this shape."""
    return np.asarray(np.any([np.zeros(shape, bool), *masks.values()], axis=0))


def _tissue(inside: Array, lesion: Array) -> Array:
    """Take the lesion out of what a window is taken from, unless nothing would be left."""
    left: Array = inside & ~lesion
    return left if left.any() else inside


def _mask_paths(files: Files) -> list[Path]:
    return list(dict.fromkeys(mask.path for mask in files.masks.values()))


def _window(path: Path, raw: Raw, inside: Array, data: DataSettings) -> tuple[float, float]:
    """What becomes 0 and 1: as in training, where what medgen has written keeps its scale."""
    if raw.volume.written:
        return 0.0, float(WHITE)
    low, high = window(raw.volume.data, inside, data.lower, data.upper, data.headroom)
    if not low < high:
        raise DataError(flat(path, low, data.lower, data.upper))
    return low, high


def _scaled(raw: Raw, inside: Array, window: tuple[float, float]) -> Array:
    low, high = window
    scaled = (raw.volume.data - np.float32(low)) * np.float32(1 / (high - low))
    return np.asarray(np.where(inside, scaled, np.float32(0)))
