"""Made-up heads with sulci, ventricles and a lesion each, at 64 px: persons differ, slices of one hardly do."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from medgen.data.grid import Grid
from medgen.evaluation.samples import Samples

SIDE = 64


def person(number: int, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 `[slice, SIDE, SIDE]` in [-1, 1] and lesions, bool: smooth noise in an ellipse, along an axis."""
    rng = np.random.default_rng([7, number])
    shape = (slices, SIDE, SIDE)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    head = (y / rng.uniform(0.72, 0.8)) ** 2 + (x / rng.uniform(0.56, 0.64)) ** 2 < 1
    fold, coarse = (
        ndimage.gaussian_filter(rng.normal(size=shape), (1.5, s, s)) for s in (1.6, 4.0)
    )
    level = 0.3 + 0.12 * fold / fold.std() + 0.1 * coarse / coarse.std()
    images = np.where(head, np.clip(level, -0.7, 1.0), -1.0).astype(np.float32)
    masks = np.zeros(shape, bool)
    for image, mask in zip(images, masks, strict=True):
        spot = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2.5)
        place = np.hypot(y - rng.uniform(-0.3, 0.3), x - rng.uniform(-0.3, 0.3)) < rng.uniform(
            0.1, 0.2
        )
        mask[:] = place & (spot > np.quantile(spot[place], 0.2))
        image[mask] = np.clip(0.6 + 0.2 * spot / spot.std(), -0.7, 1.0)[mask]
    return images, masks


def cohort(numbers: range, slices: int = 10) -> Samples:
    """Slices of some persons."""
    made = [person(number, slices) for number in numbers]
    people = np.repeat(np.array(numbers), slices)
    names = tuple(f"patient {who}, slice {n % slices}" for n, who in enumerate(people))
    images, masks = (np.concatenate(each) for each in zip(*made, strict=True))
    unknown = np.full(len(people), np.nan, np.float32)
    about = names, ("bravo",), Grid.of_slices(SIDE, 1.0, "axial"), "made up"
    return Samples(images[:, None], masks, people, unknown, *about)


def write_patients(root: Path, samples: Samples) -> Path:
    """The same as `root/Mets_<number>/{bravo,seg}.nii.gz`."""
    for who in samples.persons:
        mine = samples.take(samples.people == who)
        image = np.round((mine.images[:, 0] + 1) * 500).astype(np.int16)
        folder = root / f"Mets_{who:03d}"
        folder.mkdir(parents=True)
        for name, data in (("bravo", image), ("seg", mine.masks.astype(np.uint8))):
            volume = nib.Nifti1Image(np.moveaxis(data, 0, 2), np.diag([1.0, 1.0, 3.0, 1.0]))
            nib.save(volume, folder / f"{name}.nii.gz")
    return root
