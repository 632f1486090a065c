"""A tiny made-up cohort: blobs for heads, with a bright lesion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

CHANNELS = ("bravo", "t1_pre", "t1_gd", "flair", "seg")
TISSUE = {"bravo": 600, "t1_pre": 500, "t1_gd": 500, "flair": 300}
LESION = {"bravo": 1200, "t1_pre": 350, "t1_gd": 1000, "flair": 900}


def write_cohort(
    root: Path,
    patients: int = 4,
    size: tuple[int, int, int] = (20, 24, 10),
    seed: int = 0,
    channels: Sequence[str] = CHANNELS,
    spacing: tuple[float, float, float] = (1.0, 1.0, 2.0),
) -> Path:
    """Write `root/Mets_<number>/<channel>.nii.gz` for each patient, stored RAS, and give back `root`."""
    for number in range(patients):
        volumes = make_patient(np.random.default_rng([seed, number]), size)
        for channel in channels:
            write_volume(
                root / f"Mets_{number:03d}" / f"{channel}.nii.gz", volumes[channel], spacing
            )
    return root


def make_patient(rng: np.random.Generator, size: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """A head and a lesion of about a quarter of its width, in int16; the background is 0."""
    axes = np.meshgrid(*(np.linspace(-1, 1, count) for count in size), indexing="ij")
    head = sum((x / 0.85) ** 2 for x in axes) < 1
    centre, radius = rng.uniform(-0.3, 0.3, 3), rng.uniform(0.2, 0.3)
    lesion = sum((x - c) ** 2 for x, c in zip(axes, centre, strict=True)) < radius**2
    texture = rng.normal(0, 20, size)
    levels = {name: np.where(lesion, LESION[name], TISSUE[name]) for name in TISSUE}
    volumes = {
        name: np.where(head, level + texture, 0).astype(np.int16) for name, level in levels.items()
    }
    return volumes | {"seg": lesion.astype(np.uint8)}


def write_volume(path: Path, data: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> Path:
    """Write an array as NIfTI, stored RAS, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([*spacing, 1.0])), path)
    return path
