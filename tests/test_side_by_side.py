"""`medgen show` puts real slices, pairs and inserted lesions below each other.

Covers: medgen.cli.show.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from data.cohort import write_cohort
from insertion.made_up import write_heads
from PIL import Image

from medgen import pictures
from medgen.generation import side_by_side
from medgen.generation.side_by_side import ACROSS, SIDE, TITLE

STEP = SIDE + pictures.GAP
ROW = STEP + pictures.GAP + TITLE
"""px of a block of one row."""


def shown(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def outlines(part: np.ndarray) -> int:
    """Reddish pixels; all else is grey."""
    return int((part[..., 0].astype(int) - part[..., 2] > 60).sum())


def test_each_folder_is_a_block(medgen, trained, tmp_path):
    real, pairs, inserted = (tmp_path / name for name in ("scans", "pairs", "inserted"))
    write_cohort(real)
    write_heads(tmp_path / "hosts", range(3))
    models = ("--seg-model", trained / "seg", "--image-model", trained / "bravo")
    plain = ("--steps", 2, "--max-area", 1, "--inside", "off", "--no-audit", "--num-images", 3)
    medgen("generate", *models, *plain, "--output-dir", pairs)
    given = ("--hosts", tmp_path / "hosts", "--image-model", "paste", "--num-images", 2)
    assert medgen("insert", *given, "--output-dir", inserted).code == 0
    out = tmp_path / "a" / "show.png"
    done = medgen("show", real, pairs, inserted, "--output", out, "--count", 3)
    assert done.code == 0, done
    assert done.out.splitlines()[-1] == str(out)
    picture = shown(out)
    assert picture.shape == (3 * ROW, max(6, ACROSS // 2) * STEP + pictures.GAP, 3)
    blocks = np.split(picture, 3)
    assert outlines(blocks[0])
    assert outlines(blocks[2])
    assert blocks[1][TITLE + pictures.GAP :].std() > 10  # after four steps masks have no outline
    tile = slice(TITLE + pictures.GAP, TITLE + pictures.GAP + SIDE)
    before, after = (blocks[2][tile, x : x + SIDE] for x in (pictures.GAP, pictures.GAP + STEP))
    assert not outlines(before)
    assert not outlines(after)
    assert (before != after).any()


def test_a_dataset_alone_must_say_which_images(medgen, tmp_path):
    (tmp_path / "empty").mkdir()
    done = medgen("show", tmp_path / "empty", "--output", tmp_path / "show.png")
    assert done.code == 2
    assert "does not say which images to show" in done.err
    assert not (tmp_path / "show.png").exists()


def test_a_volume_is_shown_in_three_planes():
    volume = np.random.default_rng(0).uniform(-1, 1, (1, 1, 8, 10, 6)).astype(np.float32)
    samples = SimpleNamespace(images=volume, masks=volume[:, 0] > 0.9)
    (tiles,) = side_by_side._tiles(samples)
    assert [tile.shape for tile in tiles] == [(SIDE, SIDE, 3)] * 6
