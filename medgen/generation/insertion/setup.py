"""From what a command says to what inserts: hosts, donors, and a painter that fits them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from medgen.api.tables import DataSettings
from medgen.config.recipe import data_settings
from medgen.data.scans import layouts
from medgen.data.store.file_memo import cache_root
from medgen.data.store.store_sources import digests
from medgen.errors import DataError, Problem
from medgen.generation.insertion import cases, lesions
from medgen.generation.insertion.cases import Files
from medgen.generation.insertion.inserter import Inserter
from medgen.generation.insertion.paste import NAME, Paste
from medgen.system import console


def with_paste(hosts: Path, donors: Path | None, overrides: Sequence[str], seed: int) -> Inserter:
    """What pastes lesions of donors into hosts. donors: None: the hosts that have masks."""
    given = data_settings(overrides)
    data, theirs = attrs.evolve(given, root=hosts), attrs.evolve(given, root=donors or hosts)
    sources = [each for each in cases.find(theirs, None, masked=donors is not None) if each.masks]
    if not sources:
        what = "none of its patients has masks of lesions, and no donors are given"
        raise DataError(Problem(hosts, what, "Give --donors a dataset with masks of lesions"))
    images = tuple(sources[0].images)
    if donors is not None:
        common = tuple(cases.find(data, None, masked=False)[0].images)
        images = tuple(name for name in images if name in common)
        if not images:
            what = f"its patients have {', '.join(common)}, the donors {', '.join(sources[0].images)}"
            raise DataError(Problem(hosts, what, "Give donors of the same images"))
    sources = [each for each in cases.find(theirs, images, masked=donors is not None) if each.masks]
    return _inserter(cases.find(data, images, masked=False), sources, Paste(images), data, theirs, seed)


def _inserter(
    hosts: Sequence[Files], donors: Sequence[Files], painter: Any, data: DataSettings, theirs: DataSettings, seed: int
) -> Inserter:
    made_from = {
        "image_model": NAME,
        "hosts": _digest(hosts, data),
        "donors": _digest(donors, theirs),
        "images": list(painter.channels),
    }
    with console.progress("donors", len(donors), "read") as bar:
        library = lesions.collect(donors, theirs, bar.advance)
    for person in {each.person for each in hosts}:
        library.others(person)
    return Inserter(hosts, library, painter, data, seed, made_from)


def _digest(files: Sequence[Files], data: DataSettings) -> str:
    """sha256 of all that is read, and of how."""
    known = digests([path for each in files for path in each.paths], cache_root())
    rows = [[each.id, each.person, [known[path] for path in each.paths]] for each in files]
    masks = {name: attrs.asdict(layouts.mask(data, name)) for name in sorted(layouts.mask_names(data))}
    text = json.dumps([rows, masks, data.lower, data.upper, data.headroom, data.nan])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
