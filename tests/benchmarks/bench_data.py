"""Slices per second, four modalities of 240 x 240 as one float32 batch: the slice store against MONAI's datasets.

    python tests/benchmarks/bench_data.py [--repeats 20]

Every reader has the same slices, made ready beforehand, and shuffles; what is timed is the way from there to batches.
MONAI's are used as its tutorials do: one item per slice, dictionary transforms, its DataLoader. `lean` is the most that
can be had from CacheDataset: plain tensors, already concatenated, without metadata.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, PersistentDataset
from monai.transforms import Compose, ConcatItemsd, EnsureChannelFirstd, LoadImaged, ScaleIntensityRangePercentilesd
from monai.transforms import SelectItemsd, ToTensord

from medgen.data.settings import DataSettings
from medgen.data.store import SliceStore, open_store

NAMES = ("t1_pre", "t1_gd", "flair", "t2")
SIZE, BATCH, PATIENTS, SLICES = 240, 16, 4, 40

Reader = Callable[[], Iterable[torch.Tensor]]


def write_scans(root: Path) -> None:
    """A textured ball per patient and modality, int16 as scanners write it."""
    axes = np.meshgrid(*(np.linspace(-1, 1, count) for count in (SIZE, SIZE, SLICES)), indexing="ij")
    head = sum(axis**2 for axis in axes[:2]) < 0.8
    for patient in range(PATIENTS):
        for number, name in enumerate(NAMES):
            texture = np.random.default_rng([patient, number]).normal(600, 80, head.shape)
            path = root / f"p{patient}" / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image((head * texture).astype(np.int16), np.eye(4)), path)


def write_slices(root: Path, folder: Path) -> list[dict[str, str]]:
    """The same scans, a file per slice and modality, as 2-D pipelines in MONAI start from."""
    items = []
    for patient in sorted(root.iterdir()):
        volumes = {name: np.asarray(nib.load(patient / f"{name}.nii.gz").dataobj) for name in NAMES}
        for k in range(SLICES):
            item = {name: str(folder / f"{patient.name}_{k}_{name}.npy") for name in NAMES}
            for name, path in item.items():
                np.save(path, volumes[name][:, :, k].astype(np.float32))
            items.append(item)
    return items


def transforms() -> list[object]:
    return [
        LoadImaged(NAMES),
        EnsureChannelFirstd(NAMES, channel_dim="no_channel"),
        ScaleIntensityRangePercentilesd(NAMES, 0.5, 99.5, -1, 1, clip=True),
        ConcatItemsd(NAMES, "image"),
    ]


def store_reader(store: SliceStore) -> Iterator[torch.Tensor]:
    rows = np.random.default_rng().permutation(store.select("train"))
    for start in range(0, len(rows) - BATCH + 1, BATCH):
        yield torch.from_numpy(store.read(rows[start : start + BATCH], NAMES))


def monai_reader(dataset: torch.utils.data.Dataset[dict[str, torch.Tensor]]) -> Iterator[torch.Tensor]:
    for batch in DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True):
        yield batch["image"]


def readers(folder: Path) -> dict[str, Reader]:
    (folder / "slices").mkdir()
    write_scans(folder / "scans")
    items = write_slices(folder / "scans", folder / "slices")
    settings = DataSettings(root=folder / "scans", image_size=SIZE, val_fraction=0.0)
    store = open_store(settings, NAMES, frozenset(), cache=folder / "cache")
    lean = Compose([*transforms(), SelectItemsd("image"), ToTensord("image", track_meta=False)])
    datasets = {
        "monai CacheDataset": CacheDataset(items, Compose(transforms()), progress=False),
        "monai CacheDataset, lean": CacheDataset(items, lean, progress=False),
        "monai PersistentDataset": PersistentDataset(items, Compose(transforms()), folder / "persistent"),
    }
    found: dict[str, Reader] = {"medgen store": lambda: store_reader(store)}
    return found | {name: lambda each=each: monai_reader(each) for name, each in datasets.items()}


def rate(reader: Reader) -> float:
    """Slices per second of one pass."""
    start, count = time.perf_counter(), 0
    for batch in reader():
        assert batch.shape == (BATCH, len(NAMES), SIZE, SIZE)
        assert batch.dtype == torch.float32
        count += len(batch)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="interleaved passes of each reader")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as temporary:
        found = readers(Path(temporary))
        for reader in found.values():
            rate(reader)
        rates = [{name: rate(reader) for name, reader in found.items()} for _ in range(repeats)]
    print(f"{repeats} interleaved passes over {PATIENTS * SLICES} slices, batches of {BATCH}, {SIZE} x {SIZE}")
    print(f"{'':26}{'slices/s':>10}{'store is faster by':>22}{'10 % to 90 %':>18}")
    for name in found:
        ratios = sorted(each["medgen store"] / each[name] for each in rates)
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        median = statistics.median(each[name] for each in rates)
        print(f"{name:26}{median:10,.0f}{statistics.median(ratios):22.1f}{f'{low:.1f} to {high:.1f}':>18}")


if __name__ == "__main__":
    main()
