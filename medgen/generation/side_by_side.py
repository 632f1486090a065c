"""One picture of real slices, of pairs and of inserted lesions, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medgen import pictures
from medgen.errors import Problem, RecipeError
from medgen.evaluation import sources
from medgen.evaluation.pair_samples import read_pairs
from medgen.evaluation.samples import EVERY, Samples, read_real
from medgen.generation.insertion.insertions_picture import strips

Array = np.ndarray[Any, np.dtype[Any]]

ACROSS = 12
"""Tiles in a row."""
SIDE = 160
"""px of a tile."""
TITLE = 34
"""px of a line of text."""
DARK = 24
"""Intensity of what is between tiles."""


def save(folders: Sequence[str], out: Path, count: int) -> None:
    """Save `count` samples of each folder: image and outlined lesion of a dataset or of pairs;
    before, after and outlined of inserted lesions.

    folders: what `medgen evaluate` takes as REAL or as SYNTHETIC. A dataset is shown on the grid of
    the first pairs beside it, as they are compared. Raises RecipeError or DataError.
    """
    pairs = {each: read_pairs(Path(each), count) for each in folders if _has_pairs(Path(each))}
    like = next(iter(pairs.values()), None)
    blocks = [_block(each, count, pairs.get(each), like) for each in folders]
    width = max(each.shape[1] for each in blocks)
    padded = [
        np.pad(each, ((0, 0), (0, width - each.shape[1]), (0, 0)), constant_values=DARK)
        for each in blocks
    ]
    pictures.save(np.concatenate(padded), out)


def _has_pairs(folder: Path) -> bool:
    return (folder / "manifest.jsonl").is_file() and not strips(folder, 1)


def _block(folder: str, count: int, pairs: Samples | None, like: Samples | None) -> Array:
    name = Path(folder).name
    if inserted := strips(Path(folder), count):
        title, groups = f"{name}: before, after, with its mask", _split(inserted)
    elif pairs is not None:
        title, groups = f"{name}: generated pairs", _tiles(pairs)
    else:
        title, groups = f"{name}: real pairs", _tiles(_real(folder, count, like))
    each = max(1, ACROSS // len(groups[0]))
    rows = [[*chain(*groups[at : at + each])] for at in range(0, len(groups), each)]
    picture = pictures.grid(rows)
    return np.concatenate([_title(title, picture.shape[1]), picture])


def _real(folder: str, count: int, like: Samples | None) -> Samples:
    """Slices with a lesion, evenly over all of them, so that every person is as likely."""
    source = sources.real(folder)
    if like is None and not source.images:
        fix = "Give a recipe or a run, or pairs beside it"
        raise RecipeError(Problem(folder, "does not say which images to show", fix))
    samples = read_real(source, EVERY, like)
    rows = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return samples.take(rows)


def _tiles(samples: Samples) -> list[list[Array]]:
    """Return the tiles of each sample, then again with the lesion outlined: of a volume three."""
    marks = np.where(samples.masks, 1.0, -1.0)
    return [
        [*pictures.tiles(image[0], shown=mark), *pictures.tiles(image[0], [mark])]
        for image, mark in zip(samples.images, marks, strict=True)
    ]


def _split(strips: Sequence[Array]) -> list[list[Array]]:
    return [
        [
            pictures.enlarge(part, SIDE, Image.Resampling.BICUBIC)
            for part in np.split(strip, strip.shape[1] // strip.shape[0], axis=1)
        ]
        for strip in strips
    ]


def _title(text: str, width: int) -> Array:
    band = Image.new("RGB", (width, TITLE), (DARK,) * 3)
    font = ImageFont.load_default(size=TITLE * 0.55)
    ImageDraw.Draw(band).text((pictures.GAP * 2, TITLE * 0.2), text, (230, 230, 230), font)
    return np.array(band)
