"""From a patient's scans to slices or volumes: foreground, robust scaling, masks; no torch, for
worker processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen.api.tables import DataSettings, MaskSettings
from medgen.data.scans.consistency import Place, mismatches
from medgen.data.scans.likeness import Likeness, packed, sketch
from medgen.data.scans.nifti import gate, voxels
from medgen.data.scans.nifti.gate import Volume
from medgen.data.store.foreground.detect import detect
from medgen.data.store.foreground.detect import foreground as foreground
from medgen.data.store.foreground.head_in_noise import without_rim
from medgen.data.store.head import Head
from medgen.data.store.nifti_writer import WHITE
from medgen.data.store.patient_slices import Slices as Slices
from medgen.data.store.patient_slices import cropped
from medgen.data.store.plane import Plane
from medgen.data.store.small_lesions import Loss
from medgen.errors import DataError, Problem


class Channel(NamedTuple):
    """Where a patient's channel is read from; a mask also has the labels it is made of."""

    path: Path
    labels: tuple[int, ...] | None = None

    @classmethod
    def of(cls, path: Path, mask: MaskSettings | None) -> Channel:
        return cls(path, None if mask is None else tuple(sorted(set(mask.labels))))


class _Cut(NamedTuple):
    """A channel's samples. share: of each, in voxels, that is foreground or mask. The rest is as in
    `Slices`.

    lesions, lost, air, covered: of a mask. likeness: of the image that tells this patient from
    others.
    """

    stack: np.ndarray
    share: np.ndarray
    content: str
    lesions: tuple[int, int] = (0, 0)
    lost: Sequence[Loss] = ()
    air: tuple[float, float] = (0.0, 0.0)
    likeness: Likeness | None = None
    background: str = ""
    covered: float = 0.0


def cut(
    channels: Sequence[Channel], settings: DataSettings, head: Head | None = None
) -> Slices | list[Problem]:
    """The slices of one patient, or crops of them, or everything that is wrong with its files.

    head: what `settings.spacing` is centred on, and where lesions may be; without it, the volume.
    """
    whole = _cut_whole(channels, settings, head)
    if settings.crop == "none" or not isinstance(whole, Slices):
        return whole
    masks = [channel.labels is not None for channel in channels]
    return cropped(whole, masks, settings.shape)


def _cut_whole(
    channels: Sequence[Channel], settings: DataSettings, head: Head | None
) -> Slices | list[Problem]:
    faults: list[Problem] = []
    places: list[Place] = []
    cuts: dict[Channel, _Cut] = {}
    planes: list[Plane] = []
    first = next((channel for channel in channels if channel.labels is None), None)
    ordered = (
        channels
        if settings.crop == "none"
        else sorted(channels, key=lambda channel: channel.labels is None)
    )
    for path in dict.fromkeys(channel.path for channel in ordered):
        wanted = [channel for channel in channels if channel.path == path]
        try:
            volume = gate.read(
                path,
                settings.max_voxels,
                nan=settings.nan,
                mask=any(c.labels is not None for c in wanted),
            )
            places.append(Place(path, volume.data.shape, volume.affine))
            planes.append(Plane.of(volume, settings, head))
            content = voxels.content(volume.data) if np.ptp(volume.data) else ""
            only = _with_lesions(cuts, settings)
            cuts |= {
                each: _cut(each, volume, planes[-1], settings, content, head, each == first, only)
                for each in wanted
            }
        except DataError as error:
            faults += error.problems
    faults += [fault for place in places[1:] for fault in mismatches(places[0], place)]
    return faults or _collect(channels, cuts, planes[0], places[0], _with_lesions(cuts, settings))


def _with_lesions(cuts: Mapping[Channel, _Cut], settings: DataSettings) -> np.ndarray | None:
    """Tell which slices have a lesion, as crops need no others; None for slices, all of which are
    wanted.
    """
    masks = [each.share > 0 for channel, each in cuts.items() if channel.labels is not None]
    alike = len({each.shape for each in masks}) == 1  # else that is a fault of the files
    return np.any(masks, axis=0) if alike and settings.crop != "none" else None


def _cut(
    channel: Channel,
    volume: Volume,
    plane: Plane,
    settings: DataSettings,
    content: str,
    head: Head | None,
    compared: bool,
    only: np.ndarray | None = None,
) -> _Cut:
    """A channel's slices. compared: it is the image that tells this patient from others. only:
    slices to resample.
    """
    if channel.labels is not None:
        return _cut_mask(binary(volume.data, channel.labels), plane, content, head)
    inside, background = detect(volume.data)
    share = plane.share(inside)
    if volume.written:
        scaled = volume.data * np.float32(2 / WHITE)
    else:
        scaled = scale(
            volume.data, inside, settings.lower, settings.upper, channel.path, settings.headroom
        )
        scaled += 1  # so that the background, and whatever lies outside the volume, is 0
    stack = np.full((len(share), *plane.shape), -1, np.float16)
    shown = np.flatnonzero(
        share if only is None or only.shape != share.shape else (share > 0) & only
    )
    if len(shown):
        stack[shown] = plane.resample(scaled, shown) - 1
    alike = sketch(volume.data, inside, volume.affine) if content and compared else None
    return _Cut(stack, share, content, likeness=alike, background=background)


def _cut_mask(inside: np.ndarray, plane: Plane, content: str, head: Head | None) -> _Cut:
    shrunk = plane.shrink(inside)
    lesions = (shrunk.found, shrunk.outside)
    air, covered = ((0.0, 0.0), 0.0) if head is None else (head.air(inside), head.covered(inside))
    stack = shrunk.stack.astype(np.uint8)
    return _Cut(stack, plane.share(inside), content, lesions, shrunk.lost, air, covered=covered)


def _collect(
    channels: Sequence[Channel],
    cuts: dict[Channel, _Cut],
    plane: Plane,
    place: Place,
    only: np.ndarray | None,
) -> Slices:
    each = [cuts[channel] for channel in channels]
    masks = [cuts[channel] for channel in channels if channel.labels is not None]
    images = [cuts[channel].share for channel in channels if channel.labels is None]
    shares = np.stack([one.share for one in each])
    shown = shares.any(axis=0) if images else np.ones(shares.shape[1], bool)
    position = np.flatnonzero(shown if only is None else only)
    axes = tuple(range(1, 1 + len(plane.shape)))
    area = [np.count_nonzero(mask.stack[position], axis=axes) for mask in masks]
    lost = [(n, loss.area, loss.needs) for n, mask in enumerate(masks) for loss in mask.lost]
    return Slices(
        stacks=[one.stack[position] for one in each],
        position=position.astype(np.int32),
        foreground=images[0][position] if images else np.ones(len(position), np.float32),
        area=np.stack(area, axis=1).astype(np.int32)
        if area
        else np.empty((len(position), 0), np.int32),
        spacing=plane.pixel,
        content=[one.content for one in each],
        lesions=np.array([mask.lesions for mask in masks], np.int32).reshape(-1, 2),
        lost=np.array(lost, np.float64).reshape(-1, 3),
        air=np.array([one.air for one in each], np.float32),
        cut_off=plane.cut_off,
        voxel=np.linalg.norm(place.affine[:3, :3], axis=0),
        likeness=packed(next((one.likeness for one in each if one.likeness), None)),
        background=[one.background for one in each],
        covered=np.array([one.covered for one in each], np.float32),
    )


# Intensities


def binary(data: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Whether each voxel has one of the labels, or, where none are given, any label but 0."""
    nearest = np.rint(data)
    return np.isin(nearest, labels) if len(labels) else nearest != 0


def scale(
    data: np.ndarray,
    inside: np.ndarray,
    lower: float,
    upper: float,
    path: Path | str = "image",
    headroom: float = 0.0,
) -> np.ndarray:
    """Map the ends of the `window` to -1 and 1, clip, and set the background to -1; float32.

    Raises `DataError` that names `path` where the two are equal.
    """
    low, high = window(data, inside, lower, upper, headroom)
    if not low < high:
        raise DataError(flat(Path(path), low, lower, upper))
    scaled = (data - np.float32(low)) * np.float32(2 / (high - low)) - 1
    np.clip(scaled, -1, 1, out=scaled)
    np.copyto(scaled, -1, where=~inside)
    return np.asarray(scaled)


def window(
    data: np.ndarray, inside: np.ndarray, lower: float, upper: float, headroom: float = 0.0
) -> tuple[float, float]:
    """The two percentiles of the foreground, without its rim, which interpolation mixes with the
    background.

    headroom: by how many times their distance the upper end lies above the upper percentile.
    """
    inner = without_rim(inside)
    chosen = inner if 2 * np.count_nonzero(inner) > np.count_nonzero(inside) else inside
    low, high = np.percentile(data.T[chosen.T], [lower, upper])
    return float(low), float(high + headroom * (high - low))


def flat(path: Path, value: float, lower: float, upper: float) -> Problem:
    """What is wrong with a scan whose two percentiles are this value."""
    what = f"has no contrast, {upper - lower:g} % of its foreground is {value:g}"
    return Problem(path, what, "Give a scan; a mask belongs in data.masks")
