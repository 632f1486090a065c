"""One line for what is wrong with many scans alike, as where a whole folder is a wrong one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from medgen.errors import Problem

FEW, SHARE = 3, 0.25
"""Faults of a kind that are told one by one: up to so many, or in less than this share of the
patients.
"""
_VALUE = re.compile(r"\S*[\d/]\S*")
_VALUES = re.compile(r"#([ ,x]|to|and)*(?=#)")


def merge_alike(faults: Iterable[Problem], patients: int) -> list[Problem]:
    """Replace faults that differ in paths and values alone by the first of them with their count."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for fault in faults:
        kinds.setdefault((_kind(fault.what), _kind(fault.fix)), []).append(fault)
    merged: list[Problem] = []
    for alike in kinds.values():
        merged += alike if len(alike) <= max(FEW, SHARE * patients) else [_counted(alike)]
    return merged


def _kind(text: str) -> str:
    return _VALUES.sub("", _VALUE.sub("#", text))


def _counted(alike: list[Problem]) -> Problem:
    first, *others = alike
    return first._replace(
        what=f"{first.what}, and {len(others):,} other files likewise", patient=""
    )
