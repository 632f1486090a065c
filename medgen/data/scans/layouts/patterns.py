"""How the files of a modality are recognised, in each layout."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate
from pathlib import Path
from typing import NamedTuple

from medgen.api.tables import DEFAULT_MASK, DataSettings
from medgen.data.scans.layouts.types import Scans
from medgen.data.scans.layouts.words import IMAGE_WORDS, MASK_WORDS, SPELLINGS, spellings
from medgen.errors import DataError, Problem
from medgen.system.names import composed, native

_LESION = r"\w*lesions?\w*|\w*tumou?r\w*|\w*mets|\w*metas\w*|L|WMHs?|GTV\w*|edema|oedema|infarct\w*|stroke\w*"
BIDS = {
    "bravo": ".*_ce-.*_T1w",
    "t1_gd": ".*_ce-.*_T1w",
    "t1_pre": "(?!.*_ce-).*_T1w",
    "flair": ".*_FLAIR",
    "t2": ".*_T2w",
    "seg": rf".*_(label|desc)-({_LESION})(_\w+-\w+)*_(mask|roi|dseg)|(?!.*_(label|desc)-).*_dseg",
}
"""BIDS suffixes and entities, https://bids-specification.readthedocs.io, version 1.9."""
BIDS_SHOWN = {"seg": "*_dseg, *_label-lesion_mask, *_desc-lesion_mask"}
_ENDING = r"\.nii(\.gz)?"


class Pattern(NamedTuple):
    """How a file is recognised. key: the key of the recipe that sets it. own: the recipe sets it."""

    source: str
    key: str
    shown: str
    regex: re.Pattern[str]
    own: bool = False

    def matches(self, scans: Scans) -> list[str]:
        """Return the fitting names nearest to the patient's folder, a file of two names once."""
        names = [name for name in scans.names if self.own or name not in scans.tissue]
        for depth in range(1 + max((name.count("/") for name in names), default=0)):
            found = [name for name in names if self.regex.fullmatch(_tail(name, depth))]
            if found:
                return _once(found, scans) if len(found) > 1 else found
        return []


def in_bids(patterns: Iterable[Pattern]) -> list[Pattern]:
    """Return the same for BIDS, where what is as scanned goes before what was made of it."""
    return [each if each.own else _Nearest(*each) for each in patterns]


class _Nearest(Pattern):
    """The files as scanned: no derivatives, none in another space, none worked on."""

    __slots__ = ()

    def matches(self, scans: Scans) -> list[str]:
        found = super().matches(scans)
        tests: tuple[Callable[[str], object], ...] = (
            lambda name: "derivatives" in scans.names[name].parts,
            lambda name: "_space-" in name,
            lambda name: "_desc-preproc" in name,
        )
        for test in tests if len(found) > 1 else ():
            found = [name for name in found if not test(name)] or found
        return found


def pattern(settings: DataSettings, layout: str, root: Path, source: str) -> Pattern:
    """Return how the files of a source are recognised. Raises `DataError` where nnU-Net's
    dataset.json does not say.
    """
    own = settings.files.get(source) or (source if "*" in source or ".nii" in source else None)
    if own:
        key = f"data.files.{source}" if source in settings.files else "data.masks"
        return Pattern(source, key, own, re.compile(translate(composed(native(own)))), True)
    body, shown = _body(layout, root, source)
    return Pattern(
        source, f"data.files.{source}", shown, re.compile(f"({body}){_ENDING}", re.IGNORECASE)
    )


def found_patterns(
    settings: DataSettings, layout: str, root: Path, cohort: Iterable[Scans], sources: Iterable[str]
) -> Iterator[Pattern]:
    """Yield those of the optional sources that exist; a file is claimed once."""
    claimed: set[Path] = set()
    cohort = list(cohort)
    for each in possible(settings, layout, root, sources):
        files = {scans.names[name] for scans in cohort for name in each.matches(scans)}
        if files - claimed:
            claimed |= files
            yield each


def possible(
    settings: DataSettings, layout: str, root: Path, sources: Iterable[str]
) -> list[Pattern]:
    """Return those of the sources that this layout can name."""
    found = []
    for source in sources:
        try:
            found.append(pattern(settings, layout, root, source))
        except DataError:  # nnU-Net's dataset.json does not name it
            continue
    return in_bids(found) if layout == "bids" else found


def _body(layout: str, root: Path, source: str) -> tuple[str, str]:
    names = spellings(source)
    if layout == "folders":
        return re.escape(source), f"{source}.nii.gz"
    if layout == "brats":
        return f".*[-_. ]({names})", f"*-{SPELLINGS.get(source, source)}.nii.gz"
    if layout == "bids":
        body = BIDS.get(source, f".*_{re.escape(source)}")
        return body, BIDS_SHOWN.get(source, body)
    if layout == "modalities":
        folder = MASK_WORDS if source == DEFAULT_MASK else names
        return f"({folder})/.*|({IMAGE_WORDS})/(.*[-_./ ])?({names})", f"{source}/*.nii.gz"
    if source == DEFAULT_MASK:
        return "labels(Tr|Ts|Va|Val)/.*", "labelsTr/*.nii.gz"
    number = channel_number(root, source)
    return f"images(Tr|Ts|Va|Val)/.*{number}", f"imagesTr/*{number}.nii.gz"


def channel_number(root: Path, source: str) -> str:
    """Return `_` and a modality's four digits from `dataset.json`; nothing for the only one."""
    path = root / "dataset.json"
    scans = sorted(
        each.name for each in (root / "imagesTr").glob("*.nii*") if not each.name.startswith(".")
    )
    likely = (
        re.sub(r".*?(_\d{4})?(\.nii(\.gz)?)$", r"*\1\2", scans[0]) if scans else "*_0000.nii.gz"
    )
    advice = f'Set data.files.{source} to its channel, such as "imagesTr/{likely}"'
    channels = _channels(path, advice)
    for number, name in channels.items():
        plain = re.sub(r"[^a-z0-9]", "", name.lower())
        if re.fullmatch(f"{source.replace('_', '')}|{spellings(source)}", plain):
            return "" if len(channels) == 1 and "_" not in likely else f"_{number:0>4}"
    raise DataError(
        Problem(path, f"has no channel {source}, it names {', '.join(channels.values())}", advice)
    )


def _channels(path: Path, advice: str) -> dict[str, str]:
    try:
        dataset = json.loads(path.read_text(encoding="utf-8"))
        found = dataset.get("channel_names") or dataset["modality"]
        pairs = found.items() if isinstance(found, dict) else enumerate(found)
        return {str(number): str(name) for number, name in pairs}
    except FileNotFoundError:
        raise DataError(
            Problem(path, "does not exist, so channels have no names", advice)
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(Problem(path, "has no channel_names", advice)) from None


def _tail(name: str, depth: int) -> str:
    """Return a path without its first folders; nothing if it has fewer."""
    parts = name.split("/", depth)
    return parts[depth] if len(parts) > depth else ""


def _once(names: list[str], scans: Scans) -> list[str]:
    """Leave out second names of a file."""
    files: dict[str, str] = {}
    for name in sorted(names, key=lambda name: scans.names[name].is_symlink()):
        files.setdefault(os.path.realpath(scans.names[name]), name)
    return sorted(files.values())
