"""Slices per second, four modalities of 240 x 240 as one batch: the slice store against MONAI's datasets.

    python tests/benchmarks/bench_data.py [--repeats 20]

What is timed is the way from datasets that are ready to shuffled batches, on one thread. MONAI's are used as its users
do: dictionary transforms and its DataLoader, with an item per slice, or, as in its tutorials on BraTS, with a random
slice of a cached volume. `lean` is the most that can be had: plain tensors, concatenated before, without metadata.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, PersistentDataset
from monai.transforms import (
    Compose,
    ConcatItemsd,
    EnsureChannelFirstd,
    LoadImaged,
    RandSpatialCropd,
    ScaleIntensityRangePercentilesd,
    SelectItemsd,
    SqueezeDimd,
    ToTensord,
)
from torch.utils.data import RandomSampler

from medgen.api.tables import DataSettings
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store

NAMES = ("t1_pre", "t1_gd", "flair", "t2")
BATCH = 16


class Sizes(NamedTuple):
    """Of the scans, and how many batches a pass reads."""

    size: int = 240
    slices: int = 155
    patients: int = 2
    batches: int = 10


Reader = Callable[[], Iterable[torch.Tensor]]


def write_scans(root: Path, sizes: Sizes) -> list[dict[str, str]]:
    """A textured cylinder per patient and modality, int16 as scanners write it; gives the files of each patient."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, sizes.size)] * 2)
    head = (x**2 + y**2 < 0.8)[:, :, None]
    items = [
        {name: str(root / f"p{patient}" / f"{name}.nii") for name in NAMES}
        for patient in range(sizes.patients)
    ]
    for number, path in enumerate(path for item in items for path in item.values()):
        texture = np.random.default_rng(number).normal(
            600, 80, (sizes.size, sizes.size, sizes.slices)
        )
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image((head * texture).astype(np.int16), np.eye(4)), path)
    return items


def write_slices(
    volumes: Iterable[dict[str, str]], folder: Path, sizes: Sizes
) -> list[dict[str, str]]:
    """The same scans, a file per slice and modality."""
    folder.mkdir()
    items = [
        {name: str(folder / f"{n}_{name}.npy") for name in NAMES}
        for n in range(sizes.patients * sizes.slices)
    ]
    for patient, files in enumerate(volumes):
        for name, path in files.items():
            data = np.asarray(nib.load(path).dataobj)
            for k in range(sizes.slices):
                np.save(items[patient * sizes.slices + k][name], data[:, :, k].astype(np.float32))
    return items


def prepared(channel_dim: str) -> list[Any]:
    return [
        LoadImaged(NAMES),
        EnsureChannelFirstd(NAMES, channel_dim=channel_dim),
        ScaleIntensityRangePercentilesd(NAMES, 0.5, 99.5, -1, 1, clip=True),
        ConcatItemsd(NAMES, "image"),
    ]


def store_reader(store: SliceStore, batches: int) -> Iterator[torch.Tensor]:
    rows = np.random.default_rng().permutation(store.select("train"))
    for start in range(0, batches * BATCH, BATCH):
        yield torch.from_numpy(store.read(rows[start : start + BATCH], NAMES))


def monai_reader(dataset: Any, batches: int) -> Iterator[torch.Tensor]:
    count = batches * BATCH
    sampler = RandomSampler(dataset, replacement=len(dataset) < count, num_samples=count)
    for batch in DataLoader(dataset, batch_size=BATCH, sampler=sampler):
        yield batch["image"]


def readers(folder: Path, sizes: Sizes) -> dict[str, Reader]:
    """By name, what gives batches `[BATCH, modality, size, size]`."""
    volumes = write_scans(folder / "scans", sizes)
    slices = write_slices(volumes, folder / "slices", sizes)
    settings = DataSettings(root=folder / "scans", image_size=sizes.size, val_fraction=0.0)
    by_slice = prepared("no_channel")
    lean = Compose([*by_slice, SelectItemsd("image"), ToTensord("image", track_meta=False)])
    crop = [
        SelectItemsd("image"),
        RandSpatialCropd("image", (sizes.size, sizes.size, 1), random_size=False),
        SqueezeDimd("image", -1),
    ]
    by_volume = CacheDataset(volumes, Compose([*prepared("no_channel"), *crop]), progress=False)
    datasets = {
        "CacheDataset, slices": CacheDataset(slices, Compose(by_slice), progress=False),
        "CacheDataset, slices, lean": CacheDataset(slices, lean, progress=False),
        "PersistentDataset, slices": PersistentDataset(
            slices, Compose(by_slice), folder / "persistent"
        ),
    }
    store = open_store(settings, NAMES, frozenset(), cache=folder / "cache")
    found: dict[str, Reader] = {"medgen": partial(store_reader, store, sizes.batches)}
    found["MONAI CacheDataset, volumes"] = partial(
        monai_reader, by_volume, batches=1
    )  # each slice copies its volume
    return found | {
        f"MONAI {name}": partial(monai_reader, dataset, sizes.batches)
        for name, dataset in datasets.items()
    }


def rate(reader: Reader, size: int) -> float:
    """Slices per second of one pass."""
    start, count = time.perf_counter(), 0
    for batch in reader():
        assert batch.shape == (BATCH, len(NAMES), size, size)
        count += len(batch)
    return count / (time.perf_counter() - start)


def measure(folder: Path, sizes: Sizes, repeats: int) -> list[dict[str, float]]:
    """Slices per second by reader, of interleaved passes on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = readers(folder, sizes)
    for _ in range(2):
        [rate(reader, sizes.size) for reader in found.values()]
    rates = [
        {name: rate(reader, sizes.size) for name, reader in found.items()} for _ in range(repeats)
    ]
    torch.set_num_threads(threads)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Slices per second from the store and from MONAI's datasets."
    )
    parser.add_argument("--repeats", type=int, default=20, help="interleaved passes of each reader")
    repeats, sizes = parser.parse_args().repeats, Sizes()
    with tempfile.TemporaryDirectory() as temporary:
        rates = measure(Path(temporary), sizes, repeats)
    shape = f"{len(NAMES)} x {sizes.size} x {sizes.size}"
    print(
        f"{repeats} interleaved passes of {sizes.batches * BATCH} slices, batches of {BATCH}, {shape}"
    )
    print(f"{'':34}{'slices/s':>10}{'medgen is faster by':>22}{'10 % to 90 %':>16}")
    for name in rates[0]:
        ratios = sorted(each["medgen"] / each[name] for each in rates)
        spread = f"{ratios[repeats // 10]:.1f} to {ratios[-1 - repeats // 10]:.1f}"
        median = statistics.median(each[name] for each in rates)
        print(f"{name:34}{median:10,.0f}{statistics.median(ratios):22.1f}{spread:>16}")


if __name__ == "__main__":
    main()
