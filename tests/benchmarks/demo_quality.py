"""How good the pairs of `make demo` are, over all that were made: `python tests/benchmarks/demo_quality.py [demo]`.

Lesion contrast: mean inside the mask minus mean in a ring of 3 px around it, of images in [-1, 1], against that of the
real slices with lesions.

Brain-like, the rule: an image counts if the area of its head, the share of the head in its largest part, its solidity
(area over convex hull), its mirror symmetry (Dice of the head and its mirror image about its own middle), its mean and
spread of intensity and its sharpness (mean gradient) all lie between the lowest and the highest of the real training
slices, give or take a tenth of that range. The rule is also applied to the real slices held out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from scipy.spatial import ConvexHull

from medgen.config.recipe import load
from medgen.data.store.nifti_writer import read_slice
from medgen.run.assemble import prepare_data

HEAD = -0.85


def contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean inside minus mean in the ring, as far as the ring is head."""
    ring = ndimage.binary_dilation(mask, iterations=3) & ~mask & (image > HEAD)
    return float(image[mask].mean() - image[ring].mean()) if ring.any() else float("nan")


def features(image: np.ndarray) -> np.ndarray:
    """What the rule looks at; see above."""
    head = ndimage.binary_fill_holes(image > HEAD)
    parts, count = ndimage.label(head)
    if not count or head.sum() < 16:
        return np.full(7, np.nan)
    largest = np.bincount(parts.ravel())[1:].max() / head.sum()
    points = np.argwhere(head)
    solidity = head.sum() / ConvexHull(points).volume
    middle = round(2 * points[:, 0].mean())
    mirrored = np.zeros_like(head)
    inside = (middle - points[:, 0] >= 0) & (middle - points[:, 0] < head.shape[0])
    mirrored[middle - points[inside, 0], points[inside, 1]] = True
    dice = 2 * (head & mirrored).sum() / (head.sum() + mirrored.sum())
    values = image[head]
    sharpness = np.hypot(*np.gradient(image))[head].mean()
    return np.array([head.mean(), largest, solidity, dice, values.mean(), values.std(), sharpness])


def share_brain_like(images: Iterable[np.ndarray], low: np.ndarray, high: np.ndarray) -> tuple[float, np.ndarray]:
    """The share that passes, and the share that fails at each feature."""
    rows = np.stack([features(each) for each in images])
    good = (rows >= low) & (rows <= high)
    return float(good.all(1).mean()), 1 - good.mean(0)


def main() -> None:
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    recipe = load(demo / "bravo" / "recipe.toml")
    store = prepare_data(recipe, recipe.mode.build())
    real = {split: store.read(store.select(split), ("bravo", "seg")).astype(np.float32) for split in ("train", "val")}
    pairs = sorted((demo / "pairs" / "train").iterdir())
    made = [(read_slice(p / "bravo.nii.gz"), read_slice(p / "seg.nii.gz", is_mask=True)) for p in pairs]
    reference = np.stack([features(image) for image in real["train"][:, 0]])
    low, high = reference.min(0), reference.max(0)
    low, high = low - (high - low) / 10, high + (high - low) / 10
    true = [contrast(image, mask > 0) for image, mask in real["train"] if (mask > 0).any()]
    false = [contrast(image, mask > 0) for image, mask in made]
    passed, failed = share_brain_like((image for image, _ in made), low, high)
    held, _ = share_brain_like(real["val"][:, 0], low, high)
    table = Table("", "real", "generated")
    table.add_row("lesion contrast, mean", f"{np.nanmean(true):.3f}", f"{np.nanmean(false):.3f}")
    table.add_row("lesion contrast, ratio", "1", f"{np.nanmean(false) / np.nanmean(true):.2f}")
    table.add_row("brain-like", f"{held:.0%} (held out)", f"{passed:.0%}")
    table.add_row("slices", f"{len(true)} with lesions", f"{len(made)} pairs")
    console = Console(width=100)
    console.print(table)
    names = ("area", "largest part", "solidity", "symmetry", "mean", "spread", "sharpness")
    console.print("fails: " + ", ".join(f"{name} {share:.0%}" for name, share in zip(names, failed, strict=True)))


if __name__ == "__main__":
    main()
