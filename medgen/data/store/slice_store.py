"""Slices or volumes of a cohort in memory-mapped files, and which of them are used."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medgen.api.tables import DataSettings, size_text
from medgen.data.grid import Grid
from medgen.data.scans.layouts import SPLITS
from medgen.data.store import cache_folder, crops
from medgen.data.store.concerns import Figures
from medgen.data.store.head import Head
from medgen.data.store.store_index import read_index
from medgen.errors import DataError, Problem

FEWEST = 2
"""Slices to train on: with one there is nothing to learn but that one."""
AS_IMAGE = np.array([-1, 1], np.float16)
"""What a mask's 0 and 1 are among images."""


class SliceStore:
    """Slices or volumes of a cohort. Rows number all of them; `select` gives those that are used.
    Safe to read from any thread.

    grid: of every slice. fingerprint: equal for the same slices in the same splits. patient: number
    of each row's patient. position: of each row along the axis, voxels. lesion_area: by mask, px of
    each row. content: `[patient, channel]`, sha256 of the voxels as ASCII, empty for a constant
    volume. voxel: `[patient, 3]`, mm. likeness: of the first image of each patient, packed.
    background: `[patient, channel]`, a word of `foreground.detect` as ASCII, empty for a mask. figures:
    what there is to warn of. person: int64 `[patient]`, whose visit each is. corner, extent: of
    crops, `place` and `extent` of `Index`; None of slices. spare: px by which a crop may be moved
    to each side; 0 of slices. find_heads: gives the head of each patient. numbers: what
    `slice_numbers` has measured.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        channels: Sequence[str],
        masks: frozenset[str],
        settings: DataSettings,
    ):
        self.channels, self.masks = tuple(channels), masks & set(channels)
        index = read_index(folder)
        self.grid = Grid.of(settings, float(index.spacing))
        self.corner, self.extent = index.place, index.extent
        self.spare = 0 if index.extent is None else crops.spare(self.grid.shape)
        self.figures = Figures(
            self.grid, **{name: getattr(index, name) for name in Figures._fields[1:]}
        )
        self.patient, self.position = index.patient, index.position
        self.foreground = index.foreground
        self.content, self.background = index.content, index.background
        self.voxel, self.likeness = index.voxel, index.likeness
        names = [channel for channel in self.channels if channel in self.masks]
        self.lesion_area = dict(zip(names, index.area.T, strict=True))
        self._arrays = {
            channel: self._map(folder / str(number), channel in self.masks, int(index.crc[number]))
            for number, channel in enumerate(self.channels)
        }
        self.person = np.arange(len(self.voxel))
        self.find_heads: Callable[[], Sequence[Head]] = list
        self.numbers: dict[str, np.ndarray] = {}
        self._key = key
        self._rows: dict[str, np.ndarray] = dict.fromkeys(SPLITS, np.arange(len(self)))

    def __len__(self) -> int:
        return len(self.patient)

    @property
    def fingerprint(self) -> str:
        parts = [
            self._key.encode(),
            *(self._rows[split].astype("<i8").tobytes() for split in SPLITS),
        ]
        return hashlib.sha256(b"/".join(parts)).hexdigest()[:32]

    def select(self, split: str) -> np.ndarray:
        """The rows of a split that are used, ascending."""
        return self._rows[split]

    def patients(self, split: str) -> int:
        """How many patients have slices in a split."""
        return len(np.unique(self.patient[self._rows[split]]))

    def place(self) -> np.ndarray:
        """Place of each row in its patient's head, 0 bottom to 1 top, float32; NaN if the patient
        has one slice.
        """
        place = np.full(len(self), np.nan, np.float32)
        for patient in np.unique(self.patient):
            mine = self.patient == patient
            low, high = self.position[mine].min(), self.position[mine].max()
            if high > low:
                place[mine] = (self.position[mine] - low) / np.float32(high - low)
        return place

    def read(
        self, rows: np.ndarray, channels: Sequence[str], moved: np.ndarray | None = None
    ) -> np.ndarray:
        """`[row, channel, *size]` float16 in [-1, 1], masks at -1 and 1; the device makes float32
        of it.

        moved: of crops, by how many px along each axis, `[row, axis]`, at most `spare`; not at all
        if None.
        """
        shape = self._stored_shape()
        out = np.empty((len(rows), len(channels), math.prod(shape)), np.float16)
        for number, channel in enumerate(channels):
            source, mask = self._arrays[channel], channel in self.masks
            for place, row in enumerate(np.asarray(rows).tolist()):
                # a row at a time is a plain copy of memory, twice as fast as one gather of all
                out[place, number] = AS_IMAGE[source[row]] if mask else source[row]
        return self._framed(out.reshape(len(rows), len(channels), *shape), moved)

    def raw(self, channel: str, row: int) -> np.ndarray:
        """Return a sample as it lies in the file, read-only: `[*size]` float16, of masks uint8."""
        sample: np.ndarray = self._arrays[channel][row]
        return sample.reshape(self._stored_shape())

    def _stored_shape(self) -> tuple[int, ...]:
        """Return the points of a sample along each axis, with the rim of crops."""
        return tuple(size + 2 * self.spare for size in self.grid.shape)

    def _framed(self, out: np.ndarray, moved: np.ndarray | None) -> np.ndarray:
        """Cut crops out of their rim."""
        if not self.spare:
            return out
        shape = self.grid.shape
        starts = (
            np.full((len(out), len(shape)), self.spare) if moved is None else self.spare + moved
        )
        framed = np.empty((*out.shape[:2], *shape), out.dtype)
        for each, cut, start in zip(framed, out, starts.tolist(), strict=True):
            where = (slice(None), *map(slice, start, np.add(start, shape)))
            each[:] = cut[where]
        return framed

    def use(self, splits: Sequence[str], settings: DataSettings) -> None:
        """Decide which rows are used. splits: of each patient. Raises `DataError` if too few are
        left to train on.
        """
        split = np.array(splits)[self.patient]
        excluded = self._excluded(settings)
        used = ~np.any([*excluded.values()], axis=0)
        self._rows = {name: np.flatnonzero(used & (split == name)) for name in SPLITS}
        count = len(self._rows["train"])
        if count < FEWEST:
            train = split == "train"
            counts = [
                f"{key} excludes {np.count_nonzero(rows & train)}" for key, rows in excluded.items()
            ]
            of = f"the {np.count_nonzero(train)} training {settings.noun}"
            what = f"{count or 'none'} of {of} is used, {', '.join(counts)}"
            raise DataError(Problem("data", what, "Change these settings, or add patients"))

    def _excluded(self, settings: DataSettings) -> dict[str, np.ndarray]:
        excluded = {
            f"data.min_foreground = {settings.min_foreground:g}": self.foreground
            < settings.min_foreground
        }
        if settings.lesion_only:
            largest = np.max([*self.lesion_area.values()], axis=0)
            excluded[f"data.lesion_only with data.min_lesion = {settings.min_lesion}"] = (
                largest < settings.min_lesion
            )
        if self.extent is not None:
            side = f"data.image_size = {size_text(settings.image_size)}"
            excluded[f"{side}, which the lesion exceeds,"] = self.extent > min(self.grid.shape)
        return excluded

    def _map(self, path: Path, mask: bool, crc: int) -> np.ndarray:
        """A channel as `[row, point]`, never to be written to."""
        kind = np.uint8 if mask else np.float16
        shape = (len(self), math.prod(self._stored_shape()))
        expected = int(np.prod(shape)) * np.dtype(kind).itemsize
        cache_folder.require_whole(path, expected, crc)
        return cache_folder.mapped(path, kind, shape)
