"""Crops of volumes per second, a scan and its mask, half of them around a lesion: the store against MONAI's datasets.

    python tests/benchmarks/bench_crops.py [--repeats 10]

What is timed is the way from datasets that are ready to batches in an order of their own, on one thread. MONAI's is used
as in its tutorials of segmentation: `CacheDataset`, which holds every volume in memory, `RandCropByPosNegLabeld` with as
many samples of a volume as tutorials take, and a DataLoader. The store is mapped from the disk: what a process holds of
its own after it has read all of 2 and all of 8 volumes is shown too.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandCropByPosNegLabeld,
    ScaleIntensityRangePercentilesd,
)

from medgen.api.tables import DataSettings
from medgen.api.values import Mode
from medgen.data.store.loader import Loader
from medgen.data.store.patches import Patches
from medgen.data.store.store import open_store

NAMES = ("bravo", "seg")
SAMPLES = 4
"""Crops that MONAI takes of a volume at once."""


class Sizes(NamedTuple):
    """px of volumes and crops, and how many crops a pass reads."""

    size: int = 160
    crop: int = 64
    patients: int = 4
    crops: int = 32


def write_scans(root: Path, size: int, patients: int) -> list[dict[str, str]]:
    """A textured ball with three lesions per patient, int16 and uint8; gives the files of each patient."""
    near = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij"))
    head, items = (near**2).sum(0) < 0.9, []
    for patient in range(patients):
        draw, folder = np.random.default_rng(patient), root / f"p{patient}"
        folder.mkdir(parents=True)
        places = draw.uniform(-0.5, 0.5, (3, 3, 1, 1, 1))
        lesions = np.any([((near - place) ** 2).sum(0) < 0.01 for place in places], axis=0)
        texture = draw.normal(600, 80, head.shape) + 200 * lesions
        scan = (head * texture).astype(np.int16)
        for name, data in zip(NAMES, (scan, lesions.astype(np.uint8)), strict=True):
            nib.save(nib.Nifti1Image(data, np.eye(4)), folder / f"{name}.nii")
        items.append({name: str(folder / f"{name}.nii") for name in NAMES})
    return items


def store_loader(folder: Path, sizes: Sizes) -> Loader:
    data = DataSettings(
        root=folder / "scans", dimensions=3, image_size=sizes.size, spacing=1.0, val_fraction=0.0,
        min_foreground=0.0, patch_size=sizes.crop, lesion_patches=0.5, workers=1,
    )  # fmt: skip
    store = open_store(data, NAMES, frozenset({"seg"}), cache=folder / "cache")
    mode = Mode(images=("bravo",), condition=("seg",))
    return Loader(store, mode, "train", patches=Patches.of(store, data, 0))


def read_store(loader: Loader, sizes: Sizes, turns: list[int]) -> int:
    """Read crops at the next places of a run. turns: passes so far."""
    turns.append(len(turns))
    samples = np.arange(sizes.crops) % loader.size
    places = np.arange(sizes.crops) + turns[-1] * sizes.crops
    for start in range(0, sizes.crops, SAMPLES):
        some = slice(start, start + SAMPLES)
        batch = loader.read(samples[some], loader.patches.drawn(samples[some], places[some]))
        assert batch.image.shape[2:] == batch.condition.shape[2:] == (sizes.crop,) * 3
    return sizes.crops


def read_monai(dataset: Any, sizes: Sizes) -> int:
    count = 0
    for batch in DataLoader(dataset, batch_size=1, shuffle=True):
        assert batch["bravo"].shape == (SAMPLES, 1, *(sizes.crop,) * 3)
        count += SAMPLES
        if count >= sizes.crops:
            break
    return count


def readers(folder: Path, sizes: Sizes) -> dict[str, Callable[[], int]]:
    """By name, what reads crops and gives their number."""
    items = write_scans(folder / "scans", sizes.size, sizes.patients)
    crop = RandCropByPosNegLabeld(NAMES, "seg", (sizes.crop,) * 3, pos=1, neg=1, num_samples=SAMPLES)  # fmt: skip
    prepared = [
        LoadImaged(NAMES),
        EnsureChannelFirstd(NAMES),
        ScaleIntensityRangePercentilesd("bravo", 0.5, 99.5, -1, 1, clip=True),
    ]
    dataset = CacheDataset(items, Compose([*prepared, crop]), progress=False)
    name = "MONAI CacheDataset, RandCropByPosNegLabel"
    loader = store_loader(folder, sizes)
    return {
        "medgen": partial(read_store, loader, sizes, []),
        name: partial(read_monai, dataset, sizes),
    }


def rate(reader: Callable[[], int]) -> float:
    """Crops per second of one pass."""
    start = time.perf_counter()
    return reader() / (time.perf_counter() - start)


def measure(folder: Path, sizes: Sizes, repeats: int) -> list[dict[str, float]]:
    """Crops per second by reader, of interleaved passes on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = readers(folder, sizes)
    for reader in found.values():
        rate(reader)
    rates = [{name: rate(reader) for name, reader in found.items()} for _ in range(repeats)]
    torch.set_num_threads(threads)
    return rates


def held(folder: Path, sizes: Sizes) -> float:
    """MB by which this process has grown of its own once all volumes of a store were read."""
    write_scans(folder / "scans", sizes.size, sizes.patients)
    loader = store_loader(folder, sizes)
    before, turns = own(), list[int]()
    for _ in range(4):
        read_store(loader, sizes._replace(crops=4 * sizes.patients), turns)
    return own() - before


def own() -> float:
    """MB of this process that are no part of a file, which the system may take back."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Crops per second from the store and from MONAI.")
    parser.add_argument("--repeats", type=int, default=10, help="interleaved passes of each reader")
    repeats, sizes = parser.parse_args().repeats, Sizes()
    with tempfile.TemporaryDirectory() as temporary:
        for count in (2, 2, 8):
            place = Path(temporary, f"held-{count}-{time.time_ns()}")
            grown = held(place, sizes._replace(patients=count))
            print(f"{count} volumes read: {grown:.1f} MB more of its own")
        rates = measure(Path(temporary), sizes, repeats)
    print(
        f"{repeats} interleaved passes of {sizes.crops} crops of {sizes.crop}^3 of {sizes.size}^3"
    )
    for name in rates[0]:
        ratios = sorted(each["medgen"] / each[name] for each in rates)
        median = statistics.median(each[name] for each in rates)
        print(
            f"{name:44}{median:8,.1f} crops/s, medgen is faster by {statistics.median(ratios):.1f}"
            f" ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        )


if __name__ == "__main__":
    main()
