"""The patients of a folder with a folder each, or with groups of them: sites, grades, visits, a
folder per modality.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from medgen.data.scans.layouts.grouping import (
    by_split,
    gather,
    is_modality,
    modal,
    side_by_side,
    spread,
)
from medgen.data.scans.layouts.patterns import Pattern
from medgen.data.scans.layouts.split_kinds import by_split_and_kind
from medgen.data.scans.layouts.types import Left, Listing, Scans, Split, listed
from medgen.data.scans.layouts.walk import Contents, direct, folders, format_of, is_nifti, look
from medgen.data.scans.layouts.words import split_of
from medgen.errors import DataError, Problem
from medgen.system.names import composed

Patterns = Callable[[str, Sequence[Scans]], list[Pattern]]
"""Those of a layout, which is made out by what there is."""


class _Place(NamedTuple):
    """A folder of a split's patients. found: what its folders hold. loose: scans beside them."""

    folder: Path
    split: Split | None
    found: dict[Path, Contents]
    loose: dict[str, Path]

    def whole(self) -> Scans:
        """Return all of it, as if it were a patient's."""
        names = {
            composed(path.relative_to(self.folder).as_posix()): path for path in self._images()
        }
        return Scans("", self.split, self.folder, names, self.folder)

    def units(self) -> list[Scans]:
        """Return each folder with scans, as if it were a patient's."""
        counts = Counter(composed(folder.name) for folder in self.found)
        return [
            Scans(id, self.split, folder, contents.images, self.folder, others=_others(contents))
            for folder, contents in self.found.items()
            if contents.images
            for id in [composed(folder.name) if counts[composed(folder.name)] == 1 else folder.name]
        ]

    def _images(self) -> Iterator[Path]:
        for contents in self.found.values():
            yield from contents.images.values()


def by_folder(root: Path, patterns: Patterns) -> tuple[str, Listing]:
    """Return the layout and what there is. Raises `DataError` where the folder is a patient's."""
    if paired := by_split_and_kind(root):
        return "modalities", Listing(_without_test(paired.scans), paired.left)
    places, left = _places(root)
    wholes = [place.whole() for place in places]
    if modal(wholes):
        return "modalities", Listing([each for whole in wholes for each in gather(whole)], left)
    units = [unit for place in places for unit in place.units()]
    parts = [part for unit in units for part in by_split(unit)]
    if modal(parts):
        return "modalities", Listing(
            _without_test([each for part in parts for each in gather(part)]), left
        )
    flat = [
        place.whole()._replace(names=place.loose)
        for place in places
        if not place.units() and place.loose
    ]
    own = patterns("auto", units + flat)
    scans = [each for unit in units for each in spread(unit, own)]
    for whole in flat:
        scans += _flat(root, whole, own, alone=len(places) == 1 and not units)
    for place in places:
        if place.loose and place.units():
            left += [Left("loose", path) for path in place.loose.values()]
    return "auto", Listing(_without_test(scans), left)


def without_twins(scans: Sequence[Scans]) -> tuple[list[Scans], list[Left]]:
    """Return those whose files are not another's, by links, in the same split."""
    seen: dict[tuple[object, ...], Scans] = {}
    kept: list[Scans] = []
    left: list[Left] = []
    for each in scans:
        files = frozenset(map(os.path.realpath, each.names.values()))
        first = seen.setdefault((each.split, files), each)
        if first is each:
            kept.append(each)
        else:
            left.append(Left("twice", each.folder, (first.id,)))
    return kept, left


def leave(folder: Path, contents: Contents) -> Iterator[Left]:
    """Yield what a folder holds that is not read, where that may be a patient's all."""
    for path in contents.broken:
        yield Left("broken", path)
    if contents.images:
        return
    foreign = contents.foreign()
    for kind, paths in foreign.items():
        yield Left(kind, folder, tuple(path.name for path in paths))
    if not contents.files and not contents.broken:
        yield Left("empty", folder)


def _places(root: Path) -> tuple[list[_Place], list[Left]]:
    """Return where patients are: folders named after splits, or else the folder itself."""
    marked = {folder: split for folder in folders(root) if (split := _split(folder))}
    by_hand = {split for split in marked.values() if split != "test"}
    here, left = _place(root, None, [each for each in folders(root) if each not in marked])
    places, beside = [], not by_hand
    if beside:
        places.append(here)
    else:
        left = [each for each in left if each.kind == "broken"]
        left += [
            Left("beside", folder, (*contents.images,))
            for folder, contents in here.found.items()
            if contents.images
        ]
        left += [Left("beside", path) for path in here.loose.values()]
    for folder, split in marked.items():
        decided = split if split == "test" or "val" in by_hand else None
        place, more = _place(folder, decided, folders(folder))
        places.append(place)
        left += more
    return places, left


def _place(folder: Path, split: Split | None, inner: Sequence[Path]) -> tuple[_Place, list[Left]]:
    found = {each: look(each) for each in inner}
    left = [each for path, contents in found.items() for each in leave(path, contents)]
    loose = {composed(path.name): path for path in direct(folder) if is_nifti(path.name)}
    for path in direct(folder):
        kind = format_of(path.name)
        if kind:
            left.append(Left(kind, path))
        elif not path.suffix and path.is_symlink() and not path.exists():
            left.append(Left("broken", path))
    return _Place(folder, split, found, loose), left


def _split(folder: Path) -> Split | None:
    """Return the split that a folder is named after; a patient's own folder may have any name."""
    split = split_of(folder.name)
    own = re.search(r"\d$", folder.name) and any(is_nifti(path.name) for path in direct(folder))
    return None if own else split


def _flat(root: Path, whole: Scans, patterns: Sequence[Pattern], alone: bool) -> list[Scans]:
    """Return patients whose files lie side by side. Raises DataError if they cannot be told apart."""
    found = side_by_side(whole, patterns)
    if len(found) > 1 or (found and not alone):
        return found
    what = f"holds scans that lie side by side ({listed([*whole.names])})"
    above = f"data.root to the folder above, {root.resolve().parent}"
    if is_modality(root.resolve().name):
        raise DataError(
            Problem(root, what, f"Set {above}, if the other files of these patients lie beside it")
        )
    one = [each for each in patterns if each.matches(whole)]
    if one and all(len(each.matches(whole)) == 1 for each in one):
        if not found or found[0].id == root.resolve().name:
            raise DataError(
                Problem(
                    root, f"is the folder of one patient ({listed([*whole.names])})", f"Set {above}"
                )
            )
        fix = f"Give each patient a folder, or set {above}, if they are one patient's"
    else:
        fix = 'Give each patient a folder, or set data.files to patterns, such as data.files.seg="*_seg.nii.gz"'
    raise DataError(Problem(root, what, fix))


def _without_test(scans: Sequence[Scans]) -> list[Scans]:
    """A split below a group, `site/train`, means nothing unless there is a `val` too."""
    by_hand = any(each.split == "val" for each in scans)
    return [
        each if by_hand or each.split != "train" else each._replace(split=None) for each in scans
    ]


def _others(contents: Contents) -> tuple[Path, ...]:
    return tuple(path for paths in contents.others.values() for path in paths)
