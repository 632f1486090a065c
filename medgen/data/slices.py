"""From a patient's volumes to slices: foreground, robust scaling, masks, resampling; no torch, for worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage, sparse

from medgen.data import nifti
from medgen.data.agreement import Place, mismatches
from medgen.data.nifti import Fault, Volume
from medgen.data.settings import AXES, DataSettings, MaskSettings
from medgen.errors import DataError

NOT_NOISE = 0.01
"""The least share of all bright voxels that a connected part of a head has."""
DIM = 0.75
"""Part of Otsu's threshold that counts as bright, as tissue varies more than air; good down to a signal of 4 noises."""


class Channel(NamedTuple):
    """Where a patient's channel is read from; a mask also has the labels it is made of."""

    path: Path
    labels: tuple[int, ...] | None = None

    @classmethod
    def of(cls, path: Path, mask: MaskSettings | None) -> Channel:
        return cls(path, None if mask is None else tuple(sorted(set(mask.labels))))


class Slices(NamedTuple):
    """Those slices of a patient that show anything; all of them if there are masks only.

    stacks: per channel `[slice, size, size]`, float16 in [-1, 1], or for a mask uint8, 0 or 1. position: along the
    axis, in voxels. foreground: share of the slice that is foreground in the first image, 1 if there is none. area: px
    of each mask, `[slice, mask]`. spacing: mm per pixel. content: per channel, as in `agreement.Scan`.
    """

    stacks: list[np.ndarray]
    position: np.ndarray
    foreground: np.ndarray
    area: np.ndarray
    spacing: float
    content: list[str]


class _Cut(NamedTuple):
    """A channel's slices. share: of each slice, in voxels, that is foreground or mask. content: as in `Slices`."""

    stack: np.ndarray
    share: np.ndarray
    content: str


class _Plane(NamedTuple):
    """The square that a volume's slices are resampled to. extent: its side, mm."""

    axis: int
    extent: float
    rows: Any
    columns: Any

    @classmethod
    def of(cls, volume: Volume, settings: DataSettings) -> _Plane:
        axis, size = AXES.index(settings.axis), settings.image_size
        sides = [(volume.data.shape[i], volume.spacing[i]) for i in range(3) if i != axis]
        extent = max(count * spacing for count, spacing in sides)
        return cls(axis, extent, *(weights(count, spacing, extent, size) for count, spacing in sides))

    def resample(self, data: np.ndarray) -> np.ndarray:
        return resample(np.moveaxis(data, self.axis, 0), self.rows, self.columns)

    def share(self, inside: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """The share of the square that is inside, `[slice]`."""
        area = float(np.prod(spacing)) / spacing[self.axis]
        counts = np.count_nonzero(inside, axis=tuple(i for i in range(3) if i != self.axis))
        return np.asarray(counts * area / self.extent**2, np.float32)


def cut(channels: Sequence[Channel], settings: DataSettings) -> Slices | list[str]:
    """The slices of one patient, or everything that is wrong with its files."""
    problems: list[str] = []
    places: list[Place] = []
    cuts: dict[Channel, _Cut] = {}
    spacing = 0.0
    for path in dict.fromkeys(channel.path for channel in channels):
        wanted = [channel for channel in channels if channel.path == path]
        try:
            volume = nifti.read(
                path, settings.max_voxels, nan=settings.nan, mask=any(c.labels is not None for c in wanted)
            )
            places.append(Place(path, volume.data.shape, volume.affine))
            plane = _Plane.of(volume, settings)
            content = nifti.content(volume.data) if np.ptp(volume.data) else ""
            cuts |= {channel: _cut(channel, volume, plane, settings, content) for channel in wanted}
            spacing = plane.extent / settings.image_size
        except DataError as error:
            problems += error.problems
    problems += [fault.line() for place in places[1:] for fault in mismatches(places[0], place)]
    return problems or _collect(channels, cuts, spacing)


def _cut(channel: Channel, volume: Volume, plane: _Plane, settings: DataSettings, content: str) -> _Cut:
    if channel.labels is not None:
        inside = binary(volume.data, channel.labels)
        stack = plane.resample(inside.astype(np.float32)) > 0.5
        return _Cut(stack.astype(np.uint8), plane.share(inside, volume.spacing), content)
    inside = foreground(volume.data)
    scaled = scale(volume.data, inside, settings.lower, settings.upper, channel.path)
    scaled += 1  # so that the background, and whatever lies outside the volume, is 0
    stack = plane.resample(scaled) - 1
    return _Cut(stack.astype(np.float16), plane.share(inside, volume.spacing), content)


def _collect(channels: Sequence[Channel], cuts: dict[Channel, _Cut], spacing: float) -> Slices:
    images = [cuts[channel].share for channel in channels if channel.labels is None]
    shares = np.stack([cuts[channel].share for channel in channels])
    position = np.flatnonzero(shares.any(axis=0)) if images else np.arange(shares.shape[1])
    stacks = [cuts[channel].stack[position] for channel in channels]
    areas = [
        np.count_nonzero(stack, axis=(1, 2))
        for stack, channel in zip(stacks, channels, strict=True)
        if channel.labels is not None
    ]
    area = np.stack(areas, axis=1) if areas else np.empty((len(position), 0))
    first = images[0][position] if images else np.ones(len(position), np.float32)
    contents = [cuts[channel].content for channel in channels]
    return Slices(stacks, position.astype(np.int32), first, area.astype(np.int32), spacing, contents)


# Intensities


def binary(data: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Whether each voxel has one of the labels, or, where none are given, any label but 0."""
    nearest = np.rint(data)
    return np.isin(nearest, labels) if len(labels) else nearest != 0


def scale(data: np.ndarray, inside: np.ndarray, lower: float, upper: float, path: Path | str = "image") -> np.ndarray:
    """Map two percentiles of the foreground to -1 and 1, clip, and set the background to -1; float32.

    Raises `DataError` that names `path` where the two are equal.
    """
    low, high = window(data, inside, lower, upper)
    if not low < high:
        raise DataError(flat(Path(path), low, lower, upper).line())
    scaled = (data - np.float32(low)) * np.float32(2 / (high - low)) - 1
    np.clip(scaled, -1, 1, out=scaled)
    np.copyto(scaled, -1, where=~inside)
    return np.asarray(scaled)


def window(data: np.ndarray, inside: np.ndarray, lower: float, upper: float) -> tuple[float, float]:
    """The two percentiles of the foreground."""
    low, high = np.percentile(data.T[inside.T], [lower, upper])
    return float(low), float(high)


def flat(path: Path, value: float, lower: float, upper: float) -> Fault:
    """What is wrong with a scan whose two percentiles are this value."""
    what = f"has no contrast, {upper - lower:g} % of its foreground is {value:g}"
    return Fault(path, what, "Give a scan; a mask belongs in data.masks")


def foreground(data: np.ndarray) -> np.ndarray:
    """Where the head is: what differs from a constant background, or else what stands out from a noisy one."""
    values, counts = np.unique(np.concatenate(_faces(data)), return_counts=True)
    differs = data != values[counts.argmax()]
    box = differs[ndimage.find_objects(differs.astype(np.uint8))[0]]
    # Padding around noise is constant too; but a head touches the sides of its box here and there, and noise all over.
    return np.asarray(differs) if np.concatenate(_faces(box)).mean() < 0.5 else head(data)


def head(data: np.ndarray) -> np.ndarray:
    """The large bright parts, with all that they enclose."""
    dark = float(data.min())
    bright = data > dark + DIM * (otsu(data) - dark)
    parts, count = ndimage.label(bright)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    solid = (sizes >= min(NOT_NOISE * sizes.sum(), sizes.max()))[parts]
    solid &= bright
    gaps, count = ndimage.label(~solid)
    outside = np.zeros(count + 1, bool)
    outside[np.concatenate(_faces(gaps))] = True
    return np.asarray(~outside[gaps] | solid)


def otsu(data: np.ndarray) -> float:
    """The threshold that best separates two classes (Otsu 1979, equation 18), of a histogram of 256 bins."""
    counts, edges = np.histogram(data, 256, (float(data.min()), float(np.percentile(data, 99.9))))
    centres = (edges[1:] + edges[:-1]) / 2
    omega = np.cumsum(counts) / counts.sum()
    mu = np.cumsum(counts * centres) / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mu[-1] * omega - mu) ** 2 / (omega * (1 - omega))
    return float(edges[1 + np.nanargmax(between[:-1])])


def _faces(data: np.ndarray) -> list[np.ndarray]:
    return [np.moveaxis(data, axis, 0)[end].ravel() for axis in range(3) for end in (0, -1)]


# Resampling


def weights(count: int, spacing: float, extent: float, size: int) -> Any:
    """Linear interpolation along one axis, antialiased, as a sparse matrix `[size, count]`.

    `count` voxels of `spacing` mm, centred in `extent` mm, become `size` pixels. A pixel's weights add up to 1 together
    with those of the zeros outside the volume. The kernel is a triangle of one pixel or one voxel to each side,
    whichever is larger.
    """
    pixel = extent / size
    reach = max(pixel, spacing)
    beyond = max(0, int(np.ceil(((extent - count * spacing) / 2 + reach) / spacing)) + 1)
    voxels = (np.arange(-beyond, count + beyond) + 0.5 - count / 2) * spacing
    pixels = (np.arange(size) + 0.5 - size / 2) * pixel
    kernel = np.clip(1 - np.abs(pixels[:, None] - voxels) / reach, 0, None)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return sparse.csr_array(kernel[:, beyond : beyond + count].astype(np.float32))


def resample(stack: np.ndarray, rows: Any, columns: Any) -> np.ndarray:
    """`[slice, row, column]` to `[slice, size, size]` with the weights of each axis; sparse, so on one core."""
    count, height, width = stack.shape
    tall = rows @ stack.transpose(1, 2, 0).reshape(height, width * count)
    wide = tall.reshape(-1, width, count).transpose(1, 0, 2).reshape(width, -1)
    return np.asarray((columns @ wide).reshape(-1, len(tall), count).transpose(2, 1, 0))
