"""Folders named after a split and what lies in them: `train_images`, `train_masks`, `ImagesVal`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from medgen.data.scans.layouts.grouping import gather
from medgen.data.scans.layouts.types import Left, Listing, Scans, Split
from medgen.data.scans.layouts.walk import Contents, folders, look
from medgen.data.scans.layouts.words import IMAGE_WORDS, MASK_WORDS, every_spelling, split_of

_SPLITS: dict[Split, str] = {
    "train": "tr|trn|train|training",
    "val": "va|val|valid|validation|validate|validating|eval",
    "test": "ts|tst|test|testing",
}
_SPLIT = rf"(?P<split>{'|'.join(_SPLITS.values())})([-_ .]?(data|set|dataset))?"
_KIND = f"(?P<kind>{MASK_WORDS}|{IMAGE_WORDS}|{every_spelling()})"
_BOTH = [
    re.compile(rf"(.*[-_ .])?{one}[-_ .]?{other}", re.IGNORECASE)
    for one, other in ((_SPLIT, _KIND), (_KIND, _SPLIT))
]
_MASKS = re.compile(MASK_WORDS, re.IGNORECASE)


class _Named(NamedTuple):
    """What a folder's name says. kind: the word for its files, as written."""

    split: Split | None
    kind: str


def by_split_and_kind(root: Path) -> Listing | None:
    """Return patients, paired within a split; None where no split has scans and masks."""
    named = {folder: each for folder in folders(root) if (each := _named(folder.name))}
    if not any(each.split for each in named.values()):
        return None
    masks = {each.split for each in named.values() if each.kind and _MASKS.fullmatch(each.kind)}
    named = {  # `train` beside `train_masks` holds the scans
        folder: each if each.kind else each._replace(kind="images")
        for folder, each in named.items()
        if each.kind or each.split in masks
    }
    scans = {each.split for each in named.values() if not _MASKS.fullmatch(each.kind)}
    if not masks & scans:
        return None
    held = {folder: look(folder) for folder in folders(root)}
    beside = {folder: each for folder, each in held.items() if folder not in named and each.images}
    left = [Left("beside", folder, (*each.images,)) for folder, each in beside.items()]
    groups = [
        _group(root, split, named, held)
        for split in dict.fromkeys(each.split for each in named.values())
    ]
    return Listing([each for group in groups for each in gather(group)], left)


def _named(name: str) -> _Named | None:
    """Read a folder's name; the kind is empty for a split alone, the split None for a kind alone."""
    for regex in _BOTH:
        if found := regex.fullmatch(name):
            return _Named(_split(found["split"]), found["kind"])
    if re.fullmatch(_KIND, name, re.IGNORECASE):
        return _Named(None, name)
    split = split_of(name)
    return _Named(split, "") if split else None


def _split(word: str) -> Split:
    return next(
        split for split, words in _SPLITS.items() if re.fullmatch(words, word, re.IGNORECASE)
    )


def _group(
    root: Path, split: Split | None, named: dict[Path, _Named], held: dict[Path, Contents]
) -> Scans:
    """Return the folders of a split, as if they were one folder with a folder per kind."""
    mine = [folder for folder, each in named.items() if each.split == split]
    names = dict(_names((named[folder].kind, held[folder]) for folder in mine))
    return Scans("", split, root, names, mine[0])


def _names(kinds: Iterable[tuple[str, Contents]]) -> Iterator[tuple[str, Path]]:
    for kind, contents in kinds:
        for name, path in contents.images.items():
            yield f"{kind}/{name}", path
