"""The control of obedience: pairs' images made again of the same noise, without their masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from medgen import seeds
from medgen.data.scans.manifest_lines import Entry, listed
from medgen.errors import Problem, RecipeError
from medgen.evaluation.samples import Samples
from medgen.generation.anatomy import Anatomy
from medgen.generation.combination import require_anatomy
from medgen.generation.generator import ANATOMY, DRAWN_AGAIN, NUMBERS
from medgen.generation.manifest import sha256
from medgen.generation.model import Model, draw_samples


def checkpoint(pairs: Path, given: Path | None, real: str) -> Path | None:
    """Find the image model that made pairs, by its hash.

    given: a checkpoint or a run's folder. Without it, the checkpoint `real`, or those in the run's
    folder `real`. Raises RecipeError if `given` made other pairs.
    """
    with listed(pairs) as lines:
        header = lines.header or {}
    digest = (
        header.get("image_model") if "batch_size" in header else None
    )  # insertions have no noise of a whole image
    if given is not None:
        path = given / "latest.pt" if given.is_dir() else given
        if (found := sha256(path)) != digest or digest is None:
            has = f"has sha256 {found[:12]}" if found else "is not there"
            what = f"{path} {has}, the pairs were made with {str(digest)[:12]}"
            raise RecipeError(
                Problem(
                    "--image-model", what, "Give the checkpoint that made them, or leave it out"
                )
            )
        return path
    where = Path(real)
    among = (
        sorted(where.glob("*.pt")) if where.is_dir() else [where] if where.suffix == ".pt" else []
    )
    return next((path for path in among if digest and sha256(path) == digest), None)


def without_mask(
    made: Samples,
    pairs: Path,
    model: Model,
    most: int,
    anatomy: Path | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Samples:
    """Make images of the first `most` pairs again, of the same noise and an empty mask.

    The masks that come along are those of the pairs, which the images were not given. anatomy: the
    folder that the pairs' anatomy came from, if the model is given any. Raises RecipeError if it is
    another.
    """
    with listed(pairs) as lines:
        header, wanted = lines.header or {}, {*made.names[:most]}
        rows = [row for row in (lines[index] for index in lines.made()) if row["id"] in wanted]
    number = {name: place for place, name in enumerate(made.names)}
    anatomies = None if anatomy is None else _anatomy(anatomy, model, header)
    images = []
    for some in _batches(rows, int(header["batch_size"])):
        generators = [
            seeds.stream(int(header["seed"]), "image", row["index"], 1 + row.get(DRAWN_AGAIN, 0))
            for row in some
        ]
        empty = torch.full((len(some), len(model.masks_given), *model.grid.shape), -1.0)
        if anatomies is not None:
            places = [anatomies.row(row[ANATOMY]) for row in some]
            empty = anatomies.joined(places, empty, model.masks_given)
        numbers = [{**row.get(NUMBERS, {}), "lesion_size": 0.0} for row in some]
        drawn = draw_samples(model, empty, generators, header["steps"], numbers, guidance=0.0)
        images.append(drawn.numpy())
        advance(len(some))
    chosen = made.take(np.array([number[row["id"]] for row in rows], np.int64))
    return attrs.evolve(chosen, images=np.concatenate(images).astype(np.float32))


def _anatomy(folder: Path, model: Model, header: Mapping[str, Any]) -> Anatomy:
    require_anatomy(model, given=True)
    found = Anatomy(folder, model, int(header["seed"]))
    if any(header.get(key) != value for key, value in found.identity().items()):
        what = f"{folder} is not the folder that the pairs were made with"
        raise RecipeError(Problem("--anatomy", what, "Give that folder, or leave it out"))
    return found


def _batches(rows: Sequence[Entry], size: int) -> list[list[Entry]]:
    remaining = iter(rows)
    return list(iter(lambda: list(islice(remaining, size)), []))
