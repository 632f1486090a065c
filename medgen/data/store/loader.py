"""From the slice store to batches on the device, in an order that is a function of the position
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from medgen import seeds
from medgen.api.augment import AugmentSettings
from medgen.api.values import Batch, Mode, SliceFacts
from medgen.data.store import slice_numbers
from medgen.data.store.augment import Augmentation
from medgen.data.store.crop_targets import mark
from medgen.data.store.latent_store import LatentStore
from medgen.data.store.patches import Patches
from medgen.data.store.slice_store import SliceStore
from medgen.errors import Problem, RecipeError


class Loader:
    """Samples of one split. Sample n of a run is `permutation(n // size)[n % size]`, so batches
    cross epochs.

    With `mode.pooled` each image of a slice is a sample of its own. Crops that are trained on are
    moved by some px, and slices changed as `augment` says, as a function of n.
    """

    def __init__(
        self,
        store: SliceStore,
        mode: Mode,
        split: str,
        seed: int = 0,
        prepared: LatentStore | None = None,
        augment: AugmentSettings | None = None,
        patches: Patches | None = None,
    ):
        """prepared: what the space made of whole samples. patches: crops of them to give instead."""
        self.patches = _fitting(patches, prepared)
        self.augmentation = _augmentation(augment, seed, store, prepared)
        self.store, self.mode, self.seed, self.prepared = store, mode, seed, prepared
        self.rows = store.select(split)
        self.views = len(mode.images) if mode.pooled else 1
        self.size = len(self.rows) * self.views
        self._scaled = slice_numbers.scaled(store, mode.scalars)
        self._order = lru_cache(maxsize=4)(
            lambda epoch: seeds.permutation(seed, epoch, self.size).numpy()
        )
        self._ahead: tuple[tuple[int, int], Future[Batch]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")

    def read(self, samples: np.ndarray, moved: np.ndarray | None = None) -> Batch:
        """The samples with these numbers in 0..size-1, as float16 on the CPU. moved: as of
        `SliceStore.read`, or the corners of crops; by default crops are the same each time.
        """
        rows, view = self._places(samples)
        if self.patches and moved is None:
            moved = self.patches.fixed(rows)
        return Batch(
            self._images(rows, view, moved),
            self._condition(rows, moved),
            self._numbers_of(rows),
            self._place_of(moved),
        )

    def whole(self, samples: np.ndarray) -> Batch:
        """`read`, but whole samples also where crops of them are trained on."""
        rows, view = self._places(samples)
        return Batch(self._images(rows, view), self._condition(rows), self._numbers_of(rows))

    def stored(self, samples: np.ndarray, moved: np.ndarray | None = None) -> Batch:
        """The same, but with what the space made of the images, where that is kept; those are never
        moved.
        """
        if self.prepared is None:
            return self.read(samples, moved)
        rows, view = self._places(samples)
        return Batch(self.prepared.read(rows, view), self._condition(rows), self._numbers_of(rows))

    def at(self, position: int, count: int, chosen: np.ndarray | None = None) -> Batch:
        """`stored`, for `count` samples from `position` of the run on; the next are read ahead
        meanwhile.

        chosen: which of them, in 0..count-1; all if None.
        """
        ahead, self._ahead = self._ahead, None
        if ahead and ahead[0] == (position, count):  # noqa: SIM108  # it would be too long
            batch = ahead[1].result()
        else:
            batch = self._shuffled(position, count, chosen)
        after = position + count
        self._ahead = (after, count), self._thread.submit(self._shuffled, after, count, chosen)
        return batch

    def slices(self, position: int, count: int) -> list[int]:
        """The rows in the store of the samples that `at` gives."""
        rows: list[int] = self.rows[self._numbers(position, count) // self.views].tolist()
        return rows

    @property
    def spacing(self) -> float:
        """mm per pixel."""
        return self.store.grid.spacing[0]

    def facts(self, numbers: np.ndarray) -> SliceFacts:
        """Whose these slices are, where in the head they lie, and how large their lesions are."""
        rows, area = self._places(numbers)[0], self._lesion_area()
        return SliceFacts(
            self.store.person[self.store.patient[rows]], self.store.place()[rows], area[rows]
        )

    def _lesion_area(self) -> np.ndarray:
        """px of all masks of every row of the store, int64."""
        none = np.zeros(len(self.store), np.int64)
        return sum((each.astype(np.int64) for each in self.store.lesion_area.values()), none)

    def with_large_lesions(self, count: int) -> np.ndarray:
        """Numbers of `count` slices, spread over the half that has the larger lesions."""
        area = self._lesion_area()[self.rows]
        order = np.argsort(-area, kind="stable")
        half = order[: max(1, len(order) // 2)]  # the very largest are neighbours in one patient
        chosen = half[np.linspace(0, len(half) - 1, count).astype(int)]
        return np.asarray(chosen * self.views)

    def close(self) -> None:
        """Let the reading thread end."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _shuffled(self, position: int, count: int, chosen: np.ndarray | None = None) -> Batch:
        places, numbers = np.arange(position, position + count), self._numbers(position, count)
        if chosen is not None:
            places, numbers = places[chosen], numbers[chosen]
        batch = self._augmented(self.stored(numbers, self._moved(numbers, places)), numbers, places)
        return batch.map(torch.Tensor.pin_memory) if torch.cuda.is_available() else batch

    def _numbers(self, position: int, count: int) -> np.ndarray:
        return np.asarray(
            [self._order(n // self.size)[n % self.size] for n in range(position, position + count)]
        )

    def _places(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.rows[samples // self.views], samples % self.views

    def _moved(self, samples: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Draw by how many px each sample of the run is moved, `[sample, axis]`; slices not at all.
        Of crops of `patches` draw the corners.
        """
        if self.patches:
            return self.patches.drawn(self._places(samples)[0], places)
        axes, most = len(self.store.grid.shape), self.store.spare
        moved = np.zeros((len(places), axes), int)
        for out, place in zip(moved if most else (), places.tolist(), strict=False):
            out[:] = [
                seeds.derive(self.seed, "move", place, axis) % (2 * most + 1) - most
                for axis in range(axes)
            ]
        return moved

    def _augmented(self, batch: Batch, samples: np.ndarray, places: np.ndarray) -> Batch:
        """Change each sample as its place in the run says, image and condition alike."""
        if self.augmentation is None:
            return batch
        count, mode = batch.image.shape[1], self.mode
        both = torch.cat([batch.image, batch.condition], dim=1).numpy()
        for out, sample, place in zip(both, samples.tolist(), places.tolist(), strict=True):
            images = mode.images[sample % self.views :][:1] if mode.pooled else mode.images
            masks = [name in self.store.masks for name in images + mode.condition]
            out[:] = self.augmentation.changed(out, masks, place)
        image, condition = (
            torch.from_numpy(np.ascontiguousarray(each))
            for each in (both[:, :count], both[:, count:])
        )
        return batch._replace(image=image, condition=condition)

    def _condition(self, rows: np.ndarray, moved: np.ndarray | None = None) -> torch.Tensor:
        masks = self._channels(rows, self.mode.condition, moved)
        if self.mode.margin:
            middle = np.array(self.store.grid.shape) // 2
            middles = np.broadcast_to(middle, (len(rows), len(middle))) - (
                0 if moved is None else moved
            )
            images = self.store.read(rows, self.mode.images, moved)
            masks = mark(masks, images, middles, self.mode.margin, self.store.grid.spacing)
        return torch.from_numpy(masks)

    def _numbers_of(self, rows: np.ndarray) -> torch.Tensor | tuple[()]:
        return torch.from_numpy(self._scaled[rows]) if self.mode.scalars else ()

    def _place_of(self, corners: np.ndarray | None) -> torch.Tensor | tuple[()]:
        """Return where crops lie in their samples, as of `Batch`."""
        if self.patches is None or corners is None or not self.mode.has_place:
            return ()
        return torch.from_numpy(self.patches.places(corners))

    def _channels(
        self, rows: np.ndarray, names: Sequence[str], moved: np.ndarray | None
    ) -> np.ndarray:
        if self.patches and moved is not None:
            return self.patches.read(rows, names, moved)
        return self.store.read(rows, names, moved)

    def _images(
        self, rows: np.ndarray, view: np.ndarray, moved: np.ndarray | None = None
    ) -> torch.Tensor:
        images = self._channels(rows, self.mode.images, moved)
        if self.mode.pooled:
            images = images[np.arange(len(rows)), view][:, None]
        return torch.from_numpy(np.ascontiguousarray(images))


def _fitting(patches: Patches | None, prepared: LatentStore | None) -> Patches | None:
    """Return the crops. Raises RecipeError for spaces that keep what they made of whole samples."""
    if patches is not None and prepared is not None:
        what = "is given, but what the space made of each whole sample is kept"
        raise RecipeError(Problem("data.patch_size", what, "Remove it, or use another space"))
    return patches


def _augmentation(
    settings: AugmentSettings | None, seed: int, store: SliceStore, prepared: LatentStore | None
) -> Augmentation | None:
    """Return what changes the slices; None for nothing. Raises RecipeError for latents, which are
    kept.
    """
    if settings is None or not settings.on:
        return None
    if prepared is not None:
        what = "is on, but what the space made of each slice is kept, and cannot be changed"
        raise RecipeError(Problem("data.augment", what, "Remove it, or use another space"))
    return Augmentation(settings, seed, store.grid)
