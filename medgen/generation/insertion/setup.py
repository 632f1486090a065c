"""From what a command says to what inserts: hosts, donors, and a painter that fits them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from medgen.api.tables import DataSettings
from medgen.config.recipe import data_settings, from_toml, to_toml
from medgen.config.registry import Registry
from medgen.data.scans import layouts
from medgen.data.store.file_memo import cache_root
from medgen.data.store.store_sources import digests
from medgen.errors import DataError, Problem, RecipeError
from medgen.generation.combination import require_same_masks
from medgen.generation.insertion import cases, lesions
from medgen.generation.insertion.cases import Files
from medgen.generation.insertion.inserter import Inserter
from medgen.generation.insertion.mask_sources import DRAWS, FolderShapes, MaskSource, ModelShapes
from medgen.generation.insertion.model_painter import ModelPainter
from medgen.generation.insertion.painter import Painter, learns_nothing
from medgen.generation.insertion.paste import NAME, Paste
from medgen.generation.masks import ModelMasks
from medgen.generation.model import load_model
from medgen.system import console

MAX_AREA = 0.2
"""Share of a slice or volume that a drawn mask covers at most: more is no lesion, of whichever kind."""
Tell = Callable[[str], None] | None
Masks = Sequence[str] | None
"""Names of the masks that lesions are read from; None: all."""


@attrs.frozen
class Scans:
    """Where hosts and donors are.

    donors: None for the hosts that have masks. masks: a folder or a checkpoint; None: the donors'
    lesions themselves. overrides: `KEY=VALUE` of [data].
    """

    hosts: Path
    donors: Path | None
    masks: Path | None
    overrides: Sequence[str]


def with_paste(scans: Scans, seed: int) -> Inserter:
    """What pastes lesions of donors into hosts: all images that both have. Raises DataError or
    RecipeError.
    """
    if scans.masks is not None:
        what = "gives masks alone, and --image-model paste copies real lesions with theirs"
        raise RecipeError(
            Problem("--seg-model", what, "Leave it out, or give a model of mode insert")
        )
    data = data_settings(scans.overrides)
    mine = set(_hosts(scans, data, None)[0].images)
    theirs = tuple(_donors(scans, data, None)[0].images)
    images = tuple(name for name in theirs if name in mine)
    if not images:
        what = f"its patients have {', '.join(sorted(mine))}, the donors {', '.join(theirs)}"
        raise DataError(Problem(scans.hosts, what, "Give donors of the same images"))
    return _inserter(scans, data, Paste(images), None, {"image_model": NAME}, seed)


def with_model(scans: Scans, painter: ModelPainter, registry: Registry, seed: int) -> Inserter:
    """What paints lesions with a trained model, which tells how scans are read. Raises DataError or
    RecipeError.
    """
    data_settings(scans.overrides)  # refuses what is not of [data]
    recipe = from_toml(to_toml(painter.model.recipe), registry, "--image-model", scans.overrides)
    made_from = {"image_model": painter.model.digest, "steps": painter.steps}
    masks = _masks(scans.masks, recipe.data, painter, registry, seed) if scans.masks else None
    return _inserter(
        scans, recipe.data, painter, painter.model.parts.mode.condition, made_from, seed, masks
    )


def _masks(
    given: Path, data: DataSettings, painter: ModelPainter, registry: Registry, seed: int
) -> MaskSource:
    """Masks from a folder, or from a model, invalid ones drawn again as `medgen generate` does."""
    if given.is_dir():
        return FolderShapes(given, data, painter.model.parts.mode.condition)
    model = load_model(given, registry)
    masks = ModelMasks(model, seed, painter.steps, MAX_AREA, DRAWS)
    require_same_masks(masks.names, painter.model)
    return ModelShapes(masks)


def _hosts(
    scans: Scans,
    data: DataSettings,
    images: Sequence[str] | None,
    masks: Masks = None,
    tell: Tell = None,
) -> list[Files]:
    return cases.find(attrs.evolve(data, root=scans.hosts), images, False, masks, tell)


def _donors(
    scans: Scans,
    data: DataSettings,
    images: Sequence[str] | None,
    masks: Masks = None,
    tell: Tell = None,
) -> list[Files]:
    """Those with masks. Raises DataError if there are none."""
    own = scans.donors is None
    found = cases.find(
        attrs.evolve(data, root=scans.donors or scans.hosts), images, not own, masks, tell
    )
    count = len(cases.mask_names(data, masks))
    if donors := [each for each in found if len(each.masks) == count]:
        return donors
    what = "none of its patients has masks of lesions, and no donors are given"
    raise DataError(Problem(scans.hosts, what, "Give --donors a dataset with masks of lesions"))


def _inserter(
    scans: Scans,
    data: DataSettings,
    painter: Painter,
    masks: Masks,
    made_from: dict[str, Any],
    seed: int,
    drawn: MaskSource | None = None,
) -> Inserter:
    hosts = _hosts(scans, data, painter.channels, masks, console.warn)
    donors = _donors(scans, data, painter.channels, masks, console.warn if scans.donors else None)
    theirs = attrs.evolve(data, root=scans.donors or scans.hosts)
    with console.progress("donors", len(donors), "read") as bar:
        library = lesions.collect(donors, theirs, bar.advance, learns_nothing(painter))
    for person in {each.person for each in hosts}:
        library.others(person)
    read = {
        "hosts": _digest(hosts, data),
        "donors": _digest(donors, data),
        "images": list(painter.channels),
    }
    made_from = {**made_from, **(drawn.identity() if drawn else {}), **read}
    return Inserter(
        hosts, library, painter, attrs.evolve(data, root=scans.hosts), seed, made_from, drawn
    )


def _digest(files: Sequence[Files], data: DataSettings) -> str:
    """sha256 of all that is read, and of how."""
    known = digests([path for each in files for path in each.paths], cache_root())
    rows = [[each.id, each.person, [known[path] for path in each.paths]] for each in files]
    masks = {
        name: attrs.asdict(layouts.mask(data, name)) for name in sorted(layouts.mask_names(data))
    }
    text = json.dumps([rows, masks, data.lower, data.upper, data.headroom, data.nan])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
