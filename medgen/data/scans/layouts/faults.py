"""What is wrong with the arrangement of a dataset, and what is not read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from medgen.api.tables import DEFAULT_MASK
from medgen.data.scans.layouts.insertions import NEW_LESIONS
from medgen.data.scans.layouts.patterns import Pattern
from medgen.data.scans.layouts.types import Scans, listed
from medgen.data.scans.layouts.words import SPELLINGS, split_of
from medgen.errors import Problem

Pairs = Sequence[tuple[Scans, list[str]]]
"""Patients, each with the names of its files for a source."""
HINTS = {"mask": "tumou?r|lesion|wmh|mets", "scan": "^(images?|imgs?|scans?)/"}
"""What names the file of a mask, or of a scan, where no modality does."""


def id_faults(root: Path, cohort: Iterable[Scans]) -> Iterator[Problem]:
    """Ids that some systems, and some people, take for one another."""
    alike: dict[str, str] = {}
    for each in cohort:
        other = alike.setdefault(unicodedata.normalize("NFC", each.id).casefold(), each.id)
        if other != each.id:
            what = f"has patients {other} and {each.id}, which differ in nothing but case or accents' encoding"
            yield Problem(root, what, "Rename one, or leave it out if it is the same patient")


def file_faults(
    root: Path, cohort: Sequence[Scans], patterns: Iterable[Pattern]
) -> Iterator[Problem]:
    """Files that are missing, and those of which there are several."""
    for pattern in patterns:
        matches = [pattern.matches(scans) for scans in cohort]
        if not any(matches):
            yield _missing_everywhere(root, cohort[0], pattern)
            continue
        pairs = list(zip(cohort, matches, strict=True))
        yield from _several(root, pattern, pairs)
        yield from _missing(pattern, pairs)


def unread(
    cohort: Iterable[Scans], patterns: Sequence[Pattern], named: Iterable[Pattern]
) -> Iterator[Problem]:
    """Imaging files that are of no source. named: patterns of the recipe, whether or not its mode
    reads them.
    """
    named = [*named]
    for scans in cohort:
        read = {name for pattern in patterns for name in pattern.matches(scans)}
        if patterns and not read:
            continue  # what such a folder has stands in the faults
        read |= {name for pattern in named for name in pattern.matches(scans)}
        read |= {f"{NEW_LESIONS}.nii.gz"} if scans.lent is not None else set()
        for name in sorted(scans.names.keys() - read):
            what = f"is of no channel ({_starred(scans, name)})"
            yield Problem(
                scans.names[name], what, "Name it in data.files if it is to be read", scans.id
            )


def tissue(root: Path, cohort: Sequence[Scans], patterns: Sequence[Pattern]) -> Iterator[Problem]:
    """That segmentations of tissue classes are taken for no lesions, where there are no others."""
    if any(pattern.source == DEFAULT_MASK for pattern in patterns):
        return
    if found := [scans.names[name] for scans in cohort for name in sorted(scans.tissue)]:
        first = found[0].relative_to(root).as_posix()
        what = f"has {len(found):,} segmentations of tissue classes, which are not read as lesions: {first}"
        yield Problem(
            root, what, f"Set data.files.{DEFAULT_MASK} to the masks of lesions, if there are any"
        )


def _missing(pattern: Pattern, pairs: Pairs) -> Iterator[Problem]:
    """A line per patient; one for a whole folder of a split in which nobody has the file."""
    places: dict[Path, list[bool]] = {}
    for scans, names in pairs:
        places.setdefault(scans.place, []).append(bool(names))
    bare = {place for place, has in places.items() if not any(has) and len(has) > 1}
    for place in bare:
        what = f"none of its {len(places[place])} patients has a file for {pattern.source} ({pattern.shown})"
        others = [each for each in places if each not in bare]
        fix = (
            f"Add them, or set data.root to {others[0]}"
            if len(others) == 1
            else "Add them, or leave them out"
        )
        yield Problem(place, what, fix)
    for scans, names in pairs:
        if not names and scans.place not in bare:
            what = f"{scans.id} has no file for {pattern.source} ({pattern.shown}), it has {_all(scans)}"
            yield Problem(scans.folder, what, "Add it, or leave the patient out", scans.id)


def _several(root: Path, pattern: Pattern, pairs: Pairs) -> Iterator[Problem]:
    """A line per patient; one for all if most have several, as then it is the pattern that is too
    wide.
    """
    found = [(scans, names) for scans, names in pairs if len(names) > 1]
    if len(found) > 2 and len(found) > len(pairs) / 2:
        scans, names = found[0]
        what = f"{len(found)} patients have several files for {pattern.source} ({pattern.shown}), {scans.id} has "
        likely = _starred(scans, names[0].rsplit("/", 1)[-1])
        yield Problem(
            root,
            what + listed(names),
            f'Set {pattern.key} to one of them, such as "*{likely.lstrip("*")}"',
        )
        return
    for scans, names in found:
        what = f"has {len(names)} files for {pattern.source} ({pattern.shown}): {listed(names)}"
        yield Problem(scans.folder, what, f"Keep one, or narrow {pattern.key}", scans.id)


def _missing_everywhere(root: Path, first: Scans, pattern: Pattern) -> Problem:
    what = f"no patient has a file for {pattern.source} ({pattern.shown}), {first.id} has {_all(first)}"
    if pattern.source == DEFAULT_MASK and first.tissue:
        what += f"; {min(first.tissue, key=len)} is of tissue classes, not lesions"
    likely = _likely(first, pattern.source)
    fix = f"Set {pattern.key} to a pattern" + (f', such as "{likely}"' if likely else "")
    return Problem(root, what, fix)


def _all(scans: Scans) -> str:
    """Everything that a patient has, read or not."""
    names = listed([*scans.names])
    others = listed([path.name for path in scans.others])
    return names + (f", and {others}, which medgen does not read" if others else "")


def _likely(scans: Scans, source: str) -> str | None:
    """The pattern of the one file whose name has a word that others use for a modality, or of the
    only scan.
    """
    words = {source, *SPELLINGS.get(source, source).split("|")}
    names = [name for name in scans.names if words & set(re.split("[^a-z0-9]+", name.lower()))]
    if not names:
        hint = HINTS["mask" if source == DEFAULT_MASK else "scan"]
        names = [
            name
            for name in scans.names
            if name not in scans.tissue and re.search(hint, name, re.IGNORECASE)
        ]
    alike = len(
        {re.sub(r"_\d{4}\.", ".", name) for name in names}
    )  # channels of a scan are a choice of one
    return _starred(scans, names[0]) if alike == 1 else None


def _starred(scans: Scans, name: str) -> str:
    """A file's name with a star for what is of this patient, or of its split, alone."""
    top, *inner = name.split("/")
    name = "/".join([top, *("*" if split_of(each) else each for each in inner[:-1]), *inner[-1:]])
    for part in sorted({scans.id, scans.person, *scans.id.split("/")}, key=len, reverse=True):
        stem = part.replace("/", "_")
        if stem and stem in name:
            return name.replace(stem, "*")
    return name
