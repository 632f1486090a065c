"""Samples per second of the loader, as slices are stored, flipped, and turned, scaled and shifted.

    python tests/benchmarks/bench_augment.py [--size 128] [--batches 20] [--repeats 10]

What is timed is `Loader.at`, from the slice store to batches on the CPU, image and mask, on one thread, in interleaved
passes; the ratio is of passes of the same round. A training step takes its batch while the next is read, so that
augmentation costs nothing as long as the loader gives more samples per second than the network takes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from medgen.api.augment import AugmentSettings
from medgen.api.tables import DataSettings
from medgen.api.values import Mode
from medgen.data.store.loader import Loader
from medgen.data.store.slice_store import SliceStore
from medgen.data.store.store import open_store

BATCH = 16
SETTINGS = {
    "as stored": AugmentSettings(),
    "flip": AugmentSettings(flip=0.5),
    "flip, rotate, scale, shift": AugmentSettings(flip=0.5, rotate=10, scale=0.05, shift=5),
}


def opened(folder: Path, size: int, lesions: int) -> SliceStore:
    """Write two heads of `size` slices, each slice with so many lesions, and store them."""
    places = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    head = (places[0] ** 2 + places[1] ** 2 < 0.8)[:, :, None]
    for number in range(2):
        rng = np.random.default_rng(number)
        bravo = (head * rng.normal(600, 80, (size, size, size))).astype(np.int16)
        seg = np.zeros(bravo.shape, np.uint8)
        for row, column in rng.integers(size // 4, 3 * size // 4, (lesions, 2)).tolist():
            seg[row : row + size // 20, column : column + size // 20] = 1
        for name, data in {"bravo": bravo, "seg": seg}.items():
            (folder / f"scans/p{number}").mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, np.eye(4)), folder / f"scans/p{number}/{name}.nii")
    settings = DataSettings(root=folder / "scans", image_size=size, val_fraction=0.0)
    return open_store(settings, ("bravo", "seg"), frozenset({"seg"}), cache=folder / "cache")


def rate(loader: Loader, batches: int, first: int) -> float:
    """Samples per second of some batches from a place in the run on."""
    start = time.perf_counter()
    for number in range(first, first + batches):
        assert len(loader.at(number * BATCH, BATCH).image) == BATCH
    return batches * BATCH / (time.perf_counter() - start)


def measure(
    folder: Path, size: int, lesions: int, batches: int, repeats: int
) -> list[dict[str, float]]:
    """Return samples per second by setting, of each round."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    store, mode = opened(folder, size, lesions), Mode(("bravo",), ("seg",))
    loaders = {name: Loader(store, mode, "train", 0, None, each) for name, each in SETTINGS.items()}
    for loader in loaders.values():
        rate(loader, 2, 0)
    rounds = [
        {name: rate(loader, batches, 2 + number * batches) for name, loader in loaders.items()}
        for number in range(repeats)
    ]
    for loader in loaders.values():
        loader.close()
    torch.set_num_threads(threads)
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description="Samples per second with and without changes.")
    parser.add_argument("--size", type=int, default=128, help="px of a slice")
    parser.add_argument("--lesions", type=int, default=3, help="lesions of a slice")
    parser.add_argument("--batches", type=int, default=20, help=f"of {BATCH}, in a pass")
    parser.add_argument("--repeats", type=int, default=10, help="interleaved passes of each")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rounds = measure(Path(temporary), given.size, given.lesions, given.batches, given.repeats)
    print(f"{given.repeats} interleaved passes of {given.batches * BATCH} samples, {given.size} px")
    print(f"{'':28}{'samples/s':>11}{'of as stored':>14}{'lowest to highest':>20}")
    for name in SETTINGS:
        ratios = sorted(each[name] / each["as stored"] for each in rounds)
        spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        median = statistics.median(each[name] for each in rounds)
        print(f"{name:28}{median:11,.0f}{statistics.median(ratios):14.3f}{spread:>20}")


if __name__ == "__main__":
    main()
