"""What a space makes of every image before training, kept on disk, so that nothing has to be made
of it again.

A folder `prepared-<key>` holds one raw array `[sample, ...]` of float16 and `about.json`. Rounding
to float16 changes a value by at most 1 part in 2048. It holds no names and no paths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medgen.api.interfaces import Space
from medgen.api.values import Mode
from medgen.data.store import cache_folder
from medgen.data.store.file_memo import cache_root
from medgen.data.store.slice_store import SliceStore
from medgen.errors import DataError, Problem
from medgen.system import files

FORMAT = 1
"""Part of the key: raise it with any change of what is kept."""
BLOCK = {2: 16, 3: 1}
"""Images prepared at a time, by their axes; always the same number, as convolutions differ in the
last bit between batch sizes. Volumes one by one, as each may take all the memory there is.
"""

Progress = Callable[[int, int], None]


class LatentStore:
    """Results of a space's `prepare` for each image of the used slices. Readable from any thread.

    With `mode.pooled` each image of a slice is a sample of its own.
    """

    def __init__(self, folder: Path, rows: np.ndarray, views: int):
        self.views, self._rows = views, rows
        self._shape, crc = _read_about(folder)
        count, path = len(rows) * views, folder / "samples"
        cache_folder.require_whole(path, count * int(np.prod(self._shape)) * 2, crc)
        self._samples = cache_folder.mapped(path, np.float16, (count, *self._shape))

    def read(self, rows: np.ndarray, view: np.ndarray) -> Tensor:
        """Return `[sample, ...]` float16 for rows of the slice store and numbers of their images."""
        places = np.searchsorted(self._rows, rows) * self.views + view
        out = np.empty((len(places), *self._shape), np.float16)
        for place, source in enumerate(
            places.tolist()
        ):  # a row at a time is a plain copy of memory
            out[place] = self._samples[source]
        return torch.from_numpy(out)


def open_latent_store(
    store: SliceStore,
    mode: Mode,
    space: Space,
    device: torch.device,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> LatentStore:
    """Return what `space.prepare` gives for the slices to train and validate on, from the cache or,
    the first time, made now.

    progress: called with the slices done and the number of slices. cache: `$MEDGEN_CACHE` or the
    user's cache folder if not given. Raises `DataError` if the space gives something not finite,
    `StorageError` if the cache cannot be written.
    """
    rows = np.union1d(store.select("train"), store.select("val"))
    folder = (cache or cache_root()) / f"prepared-{_key(store, mode, space)}"
    views = len(mode.images) if mode.pooled else 1
    return cache_folder.open_or_make(
        folder,
        "the cache of prepared slices",
        lambda: LatentStore(folder, rows, views),
        lambda: _build(folder, rows, store, mode, space, device, progress),
    )


def _key(store: SliceStore, mode: Mode, space: Space) -> str:
    """Return what decides the content: the slices, which of their channels, and the space."""
    parts = [FORMAT, store.fingerprint, mode.images, mode.pooled, space.key]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _build(
    folder: Path,
    rows: np.ndarray,
    store: SliceStore,
    mode: Mode,
    space: Space,
    device: torch.device,
    progress: Progress | None,
) -> None:
    shape: tuple[int, ...] = ()
    with cache_folder.building(folder) as made:
        path = made / "samples"
        with path.open("wb") as file:
            for done, block in _blocks(rows, store, mode, space, device):
                shape = block.shape[1:]
                file.write(np.ascontiguousarray(block).tobytes())
                if progress:
                    progress(done, len(rows))
            files.flush(file)
        with (made / "about.json").open("wb") as file:
            file.write(json.dumps({"shape": shape, "crc": cache_folder.checksum(path)}).encode())
            files.flush(file)


def _blocks(
    rows: np.ndarray, store: SliceStore, mode: Mode, space: Space, device: torch.device
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield how many rows are done, and `[sample, ...]` of the last few of them."""
    count = BLOCK[len(store.grid.shape)]
    for start in range(0, len(rows), count):
        some = rows[start : start + count]
        images = torch.from_numpy(store.read(some, mode.images)).to(device).float()
        with torch.no_grad():
            stored = space.prepare(images.flatten(0, 1)[:, None] if mode.pooled else images)
        block = stored.half().cpu().numpy()
        if not np.isfinite(block).all():
            what = f"what the space makes of slices {some[0]} to {some[-1]} is not finite, or beyond float16"
            raise DataError(Problem("data", what, "Use another autoencoder"))
        yield start + len(some), block


def _read_about(folder: Path) -> tuple[tuple[int, ...], int]:
    """Return the shape of a sample, and the checksum of all."""
    try:
        about = json.loads((folder / "about.json").read_text())
        return tuple(int(each) for each in about["shape"]), int(about["crc"])
    except (ValueError, TypeError, KeyError) as error:
        raise cache_folder.Damaged(f"about.json: {error}") from None
