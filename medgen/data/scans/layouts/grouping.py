"""From folders with scans to patients: a folder may be a patient's, or one with many patients' in
it, or flat files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from medgen.data.scans.layouts.patterns import Pattern
from medgen.data.scans.layouts.types import Scans
from medgen.data.scans.layouts.words import IMAGE_WORDS, MASK_WORDS, every_spelling, split_of, stem

_ENDS = f"{every_spelling()}|{MASK_WORDS}|{IMAGE_WORDS}"
_AFTER = re.compile(rf"(?P<key>.+?)[-_. ]+({_ENDS})", re.IGNORECASE)
_BEFORE = re.compile(rf"({MASK_WORDS}|{IMAGE_WORDS})[-_. ]*(?P<key>.*\d.*)", re.IGNORECASE)
_MASKS = re.compile(MASK_WORDS, re.IGNORECASE)
_SCANS = re.compile(f"{IMAGE_WORDS}|{every_spelling()}", re.IGNORECASE)


def spread(scans: Scans, patterns: Sequence[Pattern]) -> list[Scans]:
    """Return the patients in a folder: itself, or, where it has several files of a kind, those
    below it, at any depth.
    """
    if by_modality(scans.names):
        return gather(scans)
    repeated = [each for each in patterns if len(each.matches(scans)) > 1]
    if not repeated:
        return [scans]
    found = {name for each in repeated for name in each.matches(scans)}
    if any("/" not in name for name in found):
        flat = side_by_side(scans, patterns)
        return flat if len(flat) > 1 else [scans]
    inner = [child for child in _children(scans) if any(each.matches(child) for each in repeated)]
    apart = [each for child in inner for each in spread(child, patterns)]
    whole = all(_fits(each, inner, scans) for each in repeated)
    return apart if len(apart) > 1 and whole else [scans]


def side_by_side(scans: Scans, patterns: Iterable[Pattern]) -> list[Scans]:
    """Find patients of one folder, told apart by what precedes the modality: `P00_t1c`, `P00_seg`."""
    names = [name for name in scans.names if "/" not in name]
    keys = {name: _key(name, patterns) for name in names}
    known = {key for key in keys.values() if key}
    groups: dict[str, dict[str, Path]] = {}
    for name in names:
        key = keys[name] or (stem(name) if stem(name) in known else "")
        if key:
            groups.setdefault(key, {})[name] = scans.names[name]
    return [_part(scans, key, group) for key, group in groups.items()]


def by_modality(names: Iterable[str]) -> bool:
    """Return whether files of many patients lie in folders for scans and masks, or per modality."""
    names = list(names)
    tops = {name.split("/")[0] for name in names if "/" in name}
    masks = {top for top in tops if _MASKS.fullmatch(top)}
    scans = {top for top in tops if _SCANS.fullmatch(top) and top not in masks}
    if not scans or len(masks | scans) < 2 or len(masks | scans) < len(tops):
        return False
    keys = [_keys(names, top) for top in sorted(masks | scans)]
    return max(map(len, keys)) > 1 and any(
        len(one & two) > 1 for one in keys for two in keys if one is not two
    )


def modal(parts: Sequence[Scans]) -> bool:
    """Return whether all folders have a folder per modality of many patients; below splits, a
    patient or a kind may be alone.

    `train/images`, `train/masks`, `val/images`, `val/masks`, `test/images`.
    """
    parts = [each for each in parts if each.names]
    if not all(split_of(each.folder.name) for each in parts):
        return bool(parts) and all(by_modality(each.names) for each in parts)
    tops = [{name.split("/")[0] for name in each.names if "/" in name} for each in parts]
    kinds = [{bool(_MASKS.fullmatch(top)) for top in each} for each in tops]
    return any(len(each) == 2 for each in kinds) and all(
        each and all(map(is_modality, each)) for each in tops
    )


def by_split(scans: Scans) -> list[Scans]:
    """Return the folders of splits, `siteA/train` and `siteA/val`; without them the folder itself."""
    inner = [*_children(scans)] if all("/" in name for name in scans.names) else []
    if not inner or not all(split_of(each.folder.name) for each in inner):
        return [scans]
    return [each._replace(id=scans.id) for each in inner]


def is_modality(name: str) -> bool:
    """Return whether a folder is called as those for scans, for masks, or for a modality are."""
    return bool(_MASKS.fullmatch(name) or _SCANS.fullmatch(name))


def gather(scans: Scans) -> list[Scans]:
    """Find patients in a folder per modality: `images/P00.nii.gz`, `masks/P00_seg.nii.gz`."""
    groups: dict[tuple[str, str], dict[str, Path]] = {}
    stems = {top: _stems(scans.names, top) for top in {name.split("/")[0] for name in scans.names}}
    for name, path in scans.names.items():
        top, *inner = name.split("/")
        if not inner:
            continue
        split = ""
        if len(inner) > 1 and split_of(inner[0]):
            split, *inner = inner
        others = set().union(*(each for other, each in stems.items() if other != top))
        key = inner[0] if len(inner) > 1 else _shared(stem(inner[0]), others)
        groups.setdefault((split, key), {})[name] = path
    return [
        _part(scans, key, group)._replace(split=split_of(split) or scans.split)
        for (split, key), group in groups.items()
    ]


def _part(scans: Scans, name: str, names: dict[str, Path]) -> Scans:
    return scans._replace(id=f"{scans.id}/{name}" if scans.id else name, names=names)


def _children(scans: Scans) -> Iterator[Scans]:
    """Yield the folders in a folder, each as if a patient's; one named after a split is in it."""
    groups: dict[str, dict[str, Path]] = {}
    for name, path in scans.names.items():
        top, _, rest = name.partition("/")
        if rest:
            groups.setdefault(top, {})[rest] = path
    for top, names in groups.items():
        child = _part(scans, top, names)._replace(folder=scans.folder / top)
        split = split_of(top)
        yield child._replace(split=split, place=child.folder) if split else child


def _fits(pattern: Pattern, inner: Iterable[Scans], scans: Scans) -> bool:
    """Return whether a pattern finds the same files in a folder as in the folders below it."""
    below = {child.names[name] for child in inner for name in pattern.matches(child)}
    return below >= {scans.names[name] for name in pattern.matches(scans)}


def _key(name: str, patterns: Iterable[Pattern]) -> str:
    """Return what a file's name has before its modality; by the recipe's own patterns, what stands
    for their first star.
    """
    for each in patterns:
        if each.own and "*" in each.shown and each.regex.fullmatch(name):
            head, tail = each.shown.split("*")[0], each.shown.split("*")[-1]
            middle = name[len(head) : len(name) - len(tail)]
            return middle.strip("-_. ")
    found = _AFTER.fullmatch(stem(name))
    return found["key"] if found else ""


def _stems(names: Iterable[str], top: str) -> set[str]:
    return {stem(name) for name in names if name.startswith(f"{top}/")}


def _keys(names: Iterable[str], top: str) -> set[str]:
    """Return the patients that a folder of one modality seems to have."""
    inner = [name.split("/")[1:] for name in names if name.startswith(f"{top}/")]
    inner = [each[1:] if len(each) > 1 and split_of(each[0]) else each for each in inner]
    folders = {each[0] for each in inner if len(each) > 1}
    return folders.union(
        *({stem(each[0]), _plain(stem(each[0]))} for each in inner if len(each) == 1)
    )


def _shared(name: str, others: set[str]) -> str:
    """Return the part of a file's name that those in the other folders have too."""
    if name in others:
        return name
    short = re.sub(r"_\d{4}$", "", name)
    if short in others:
        return short
    return _plain(name)


def _plain(name: str) -> str:
    name = re.sub(r"_0\d{3}$", "", name)
    for regex in (_AFTER, _BEFORE):
        if found := regex.fullmatch(name):
            return found["key"]
    return name
