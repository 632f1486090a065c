"""`pairs.png` shows the first pairs that are there: the images, and the masks outlined on the last of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medgen import pictures
from medgen.data.grid import Grid
from medgen.data.store.nifti_writer import write_slice
from medgen.generation.pairs_picture import picture

GRID = Grid.of_slices(16, 1.0, "axial")
MASK = np.where(np.hypot(*np.mgrid[-8:8, -8:8]) < 4, 1.0, -1.0)
SIDE = 160


def written(folder: Path, indices: range) -> SimpleNamespace:
    """Write pairs of two images and a mask; return what the picture needs of their manifest."""
    for index in indices:
        there = folder / "train" / f"syn_{index:05d}"
        there.mkdir(parents=True)
        write_slice(there / "t1.nii.gz", np.full((16, 16), -0.5), False, GRID)
        write_slice(there / "flair.nii.gz", np.full((16, 16), 0.5), False, GRID)
        write_slice(there / "seg.nii.gz", MASK, True, GRID)
    return SimpleNamespace(out=folder, entries=SimpleNamespace(made=lambda: iter(indices)))


def test_a_pair_is_its_images_and_the_last_again_with_its_mask_outlined(tmp_path: Path) -> None:
    picture(["t1", "flair"], ["seg"], written(tmp_path, range(1)))  # type: ignore[arg-type]
    with Image.open(tmp_path / "pairs.png") as image:
        shown = np.asarray(image.convert("RGB"))
    row, columns = shown.shape[0] // 2, np.linspace(0, shown.shape[1], 7).round().astype(int)[1::2]
    grey = [int(shown[row, column, 0]) for column in columns]
    assert grey[0] < grey[1] == grey[2]
    outlined = (shown == pictures.OUTLINES[0]).all(axis=2)
    assert outlined[:, -SIDE:].sum() > 100
    assert not outlined[:, :-SIDE].any()


@pytest.mark.parametrize(("there", "count", "pairs"), [(range(5), 3, 3), (range(2), 3, 2)])
def test_it_shows_so_many_pairs_at_most(
    tmp_path: Path, there: range, count: int, pairs: int
) -> None:
    picture(["t1"], [], written(tmp_path, there), count)  # type: ignore[arg-type]
    with Image.open(tmp_path / "pairs.png") as image:
        assert image.width // SIDE == pairs


def test_without_a_pair_there_is_no_picture(tmp_path: Path) -> None:
    picture(["t1"], ["seg"], written(tmp_path, range(0)))  # type: ignore[arg-type]
    assert not (tmp_path / "pairs.png").exists()
