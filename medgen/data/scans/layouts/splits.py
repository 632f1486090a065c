"""Who is for training and who for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from medgen.data.scans.layouts.types import Scans, listed
from medgen.errors import Problem
from medgen.system.names import key

ORDER = (None, "train", "val", "test")


def drawn_for_val(cohort: Sequence[Scans], fraction: float) -> set[str]:
    """Draw persons where folders do not decide: the share of them whose id's sha256 is least.

    Persons of whom one has lesions of the other are drawn together, as long as those drawn are no
    more than their share; at least one group is drawn, the smallest, and at least one is left.
    """
    people = {each.person for each in cohort}
    if fraction <= 0:
        return set()
    groups = sorted(_connected(cohort), key=lambda group: min(map(_digest, group)))
    most = max(1, round(fraction * len(people)))
    drawn: set[str] = set()
    for group in groups[: len(groups) - 1]:
        drawn |= group if len(drawn) + len(group) <= most else set()
    if not drawn and len(groups) > 1:
        return min(groups, key=len)
    return drawn


def _digest(person: str) -> bytes:
    return hashlib.sha256(key(person)).digest()


def _connected(cohort: Iterable[Scans]) -> list[set[str]]:
    """Group persons: two are in one group if a scan of one, or of a third, shows lesions of both."""
    first: dict[str, str] = {}

    def root(person: str) -> str:
        while (above := first.setdefault(person, person)) != person:
            first[person] = first[above]
            person = above
        return person

    for each in cohort:
        for other in each.lent or ():
            first[root(other)] = root(each.person)
    groups: dict[str, set[str]] = {}
    for person in {each.person for each in cohort}:
        groups.setdefault(root(person), set()).add(person)
    return list(groups.values())


def split_faults(root: Path, kept: Sequence[Scans], allow_overlap: bool) -> Iterator[Problem]:
    """Persons in two splits, and a cohort with nobody to train on."""
    people: dict[str, list[Scans]] = {}
    for each in kept:
        for person in {each.person, *(each.lent or ())}:
            people.setdefault(person, []).append(each)
    for person, visits in people.items():
        if not allow_overlap and (_apart(visits) or _repeated(visits)):
            yield _overlap(root, person, visits)
    if all(each.split in ("val", "test") for each in kept):
        yield Problem(root, "has patients in val, but none in train", "Add training patients")


def _apart(visits: Sequence[Scans]) -> bool:
    """Whether they are in several splits; where medgen decides, they never are."""
    return len({each.split for each in visits}) > 1


def _repeated(visits: Sequence[Scans]) -> bool:
    """Whether an id is in two places that are not both for test."""
    ids = [each.id for each in visits if each.split != "test"]
    return len(ids) > len(set(ids))


def _overlap(root: Path, person: str, visits: Sequence[Scans]) -> Problem:
    ids: dict[str, list[str]] = {}
    for each in sorted(visits, key=lambda each: ORDER.index(each.split)):
        ids.setdefault(each.place.name, []).append(each.id)
    fix = "Keep a patient in one split"
    if {each.id for each in visits} == {person}:
        return Problem(root, f"{person} is in {' and '.join(ids)}", fix)
    where = " and ".join(f"{place} ({listed(names)})" for place, names in ids.items())
    return Problem(
        root, f"{person} is in {where}", f"{fix}, or set data.person if these are not one person"
    )
