"""Which file holds which modality of which patient, and which patients are for training and which for validation."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from medgen.data.nifti import Fault
from medgen.data.settings import DEFAULT_MASK, DataSettings, MaskSettings
from medgen.errors import DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val")
"""The splits that training reads."""
NEVER_TRAINED_ON = ("test", "test_new")

T1_GD = "t1c|t1ce|t1gd"
SPELLINGS = {"bravo": T1_GD, "t1_gd": T1_GD, "t1_pre": "t1n|t1", "flair": "t2f|flair", "t2": "t2w|t2"}
"""What others call our modalities, in lower case."""
BIDS = {
    "bravo": ".*_ce-.*_T1w",
    "t1_gd": ".*_ce-.*_T1w",
    "t1_pre": "(?!.*_ce-).*_T1w",
    "flair": ".*_FLAIR",
    "t2": ".*_T2w",
    "seg": r".*_(dseg|label-(L|lesion)(_desc-\w+)?_(mask|roi))",
}
"""BIDS suffixes and entities, https://bids-specification.readthedocs.io, version 1.9."""
SHOWN = 6
"""File names that a message lists at most."""


class Patient(NamedTuple):
    """A patient's scans. id: the folder's name (BIDS: with the session's). files: by modality or segmentation."""

    id: str
    split: Split
    files: dict[str, Path]


class Survey(NamedTuple):
    """Everything that lies in a dataset. files: by source. faults: of the arrangement, not of what is in the files.

    patients: also those in `test` and `test_new`, with the files that there are. sources: what `files` may hold.
    unread: imaging files that are none of them.
    """

    root: Path
    patients: list[Patient]
    faults: list[Fault]
    sources: list[str]
    unread: list[Fault]


class _Scans(NamedTuple):
    """Every imaging file of a patient, by its path relative to `folder`."""

    id: str
    split: Split | None
    folder: Path
    names: dict[str, Path]


class _Pattern(NamedTuple):
    """How a file is recognised. key: the key of the recipe that sets it."""

    source: str
    key: str
    shown: str
    regex: re.Pattern[str]

    def matches(self, scans: _Scans) -> list[str]:
        return [name for name in scans.names if self.regex.fullmatch(name)]


def find(settings: DataSettings, channels: Sequence[str]) -> list[Patient]:
    """All patients but those in `test` and `test_new`, ordered by id, with a file for every channel.

    Patients are in the split whose folder (`train`, `val`) they lie in; where there is no `val`, the hash of a
    patient's id decides. Raises `DataError` with a line per problem.
    """
    found = survey(settings, [source(settings, channel) for channel in channels])
    if found.faults:
        raise DataError(fault.line() for fault in found.faults)
    return [patient for patient in found.patients if patient.split in SPLITS]


def survey(settings: DataSettings, required: Iterable[str], optional: Iterable[str] = ()) -> Survey:
    """What there is of the sources that every patient must have, and of those that count if any patient has them.

    Raises `DataError` where there is nothing to look at.
    """
    root = expand(settings.root)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(Fault(root, what, "Set data.root to the folder with the scans").line())
    try:
        return _survey(settings, root, list(dict.fromkeys(required)), list(dict.fromkeys(optional)))
    except OSError as error:
        raise DataError(Fault(Path(error.filename), f"cannot be read ({error.strerror})", "Check it").line()) from None


def mask_names(settings: DataSettings) -> frozenset[str]:
    """The channels that are masks."""
    return frozenset(settings.masks or {DEFAULT_MASK})


def mask(settings: DataSettings, channel: str) -> MaskSettings:
    """What the mask `channel` is made of."""
    return settings.masks[channel] if settings.masks else MaskSettings(file=DEFAULT_MASK, labels=[])


def source(settings: DataSettings, channel: str) -> str:
    """The key in `Patient.files` that a channel is read from."""
    return mask(settings, channel).file if channel in mask_names(settings) else channel


def expand(path: Path) -> Path:
    """`~` and `$VARS` replaced."""
    return Path(os.path.expandvars(os.path.expanduser(path)))


def person(id: str) -> str:
    """The same for all sessions and time points of a patient: `sub-01/ses-02`, `BraTS-MET-00001-002`."""
    return re.sub(r"/ses-[^/]*$|(?<=-\d{5})-\d{3}$", "", id)


def _survey(settings: DataSettings, root: Path, required: list[str], optional: list[str]) -> Survey:
    layout = _detect(root) if settings.layout == "auto" else settings.layout
    everyone = sorted(_LISTINGS[layout](root), key=lambda scans: scans.id)
    kept, faults = _without_excluded(root, everyone, settings.exclude)
    cohort = [scans for scans in kept if scans.split != "test"]
    if not cohort:
        raise DataError(_no_patients(root, excluded=len(everyone) > len(kept)))
    if settings.layout == "auto" and layout == "folders" and _looks_like_brats(cohort, required + optional):
        layout = "brats"
    patterns = [_pattern(settings, layout, root, source) for source in required]
    patterns += _found_patterns(settings, layout, root, kept, [each for each in optional if each not in required])
    faults += [*_id_faults(root, kept), *_split_faults(root, kept, settings.allow_patient_overlap)]
    faults += _file_faults(root, cohort, patterns)
    val = _drawn_for_val(cohort, settings.val_fraction)
    patients = [
        Patient(each.id, each.split or ("val" if person(each.id) in val else "train"), _files(each, patterns))
        for each in kept
    ]
    return Survey(root, patients, faults, [pattern.source for pattern in patterns], [*_unread(kept, patterns)])


def _files(scans: _Scans, patterns: Iterable[_Pattern]) -> dict[str, Path]:
    matches = {pattern.source: pattern.matches(scans) for pattern in patterns}
    return {source: scans.names[names[0]] for source, names in matches.items() if names}


def _without_excluded(
    root: Path, everyone: Sequence[_Scans], exclude: Iterable[Path]
) -> tuple[list[_Scans], list[Fault]]:
    """Those whose id, folder or file no entry names, and the entries that name nothing."""
    entries = {each.as_posix() for each in exclude} - {"."}  # so they read in a checkpoint, which names no patient
    names = [_names(root, scans) for scans in everyone]
    kept = [scans for scans, mine in zip(everyone, names, strict=True) if not mine & entries]
    return kept, [_unknown(root, entry, names) for entry in sorted(entries.difference(*names))]


def _names(root: Path, scans: _Scans) -> set[str]:
    places = [path.relative_to(root).as_posix() for path in (scans.folder, *scans.names.values())]
    return {scans.id, person(scans.id), *places} - {"."}


def _unknown(root: Path, entry: str, names: Iterable[set[str]]) -> Fault:
    near = difflib.get_close_matches(entry, sorted(set().union(*names)), n=1)
    fix = "Correct it in data.exclude" + (f", perhaps to {near[0]}" if near else "")
    return Fault(root, f"has no patient or file {entry} to leave out", fix)


# Listing


def _by_folder(root: Path) -> Iterator[_Scans]:
    by_hand = [split for split in SPLITS if (root / split).is_dir()]
    places: dict[Path, Split | None] = {root: None}
    if by_hand:
        places = {root / split: split if "val" in by_hand else None for split in by_hand}
    held_out: dict[Path, Split | None] = {root / name: "test" for name in NEVER_TRAINED_ON if (root / name).is_dir()}
    for place, split in (places | held_out).items():
        for folder in _folders(place):
            if folder.name not in NEVER_TRAINED_ON and (names := _images(folder)):
                yield _Scans(folder.name, split, folder, names)


def _by_subject(root: Path) -> Iterator[_Scans]:
    """BIDS: a subject's or session's files lie in its own folder, and in that of the same name below `derivatives`."""
    pipelines = [root, *_folders(root / "derivatives")]
    for subject in _folders(root, "sub-*"):
        for folder in list(_folders(subject, "ses-*")) or [subject]:
            id = folder.relative_to(root).as_posix()
            names = [_images(pipeline / id, pipeline) for pipeline in pipelines]
            if any(names):
                yield _Scans(id, None, folder, {name: path for each in names for name, path in each.items()})


def _by_case(root: Path) -> Iterator[_Scans]:
    """nnU-Net: `imagesTr/CASE_0000.nii.gz` and on, and `labelsTr/CASE.nii.gz`."""
    cases: dict[str, dict[str, Path]] = {}
    for folder in ("imagesTr", "labelsTr"):
        for name, path in _images(root / folder, root).items():
            case = re.sub(r"\.nii(\.gz)?$", "", path.name)
            cases.setdefault(re.sub(r"_\d{4}$", "", case) if folder == "imagesTr" else case, {})[name] = path
    return (_Scans(case, None, root, names) for case, names in cases.items())


def _by_file(root: Path) -> Iterator[_Scans]:
    """Each file is a patient: masks alone, side by side."""
    for name, path in _images(root).items():
        yield _Scans(re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE), None, root, {name: path})


_LISTINGS: Mapping[str, Callable[[Path], Iterator[_Scans]]] = {
    "folders": _by_folder,
    "brats": _by_folder,
    "bids": _by_subject,
    "nnunet": _by_case,
    "files": _by_file,
}


def _folders(place: Path, pattern: str = "*") -> list[Path]:
    return sorted(each for each in place.glob(pattern) if each.is_dir() and not each.name.startswith("."))


def _images(folder: Path, relative_to: Path | None = None) -> dict[str, Path]:
    """The imaging files at any depth below a folder, by relative path, ordered."""
    found = {}
    for place, folders, names in os.walk(folder, onerror=_refuse if folder.is_dir() else None):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith((".nii", ".nii.gz")) and not name.startswith("."):
                path = Path(place, name)
                found[path.relative_to(relative_to or folder).as_posix()] = path
    return dict(sorted(found.items()))


def _refuse(error: OSError) -> NoReturn:
    """Without this `os.walk` takes a folder that it may not read for an empty one."""
    raise error


def _detect(root: Path) -> str:
    if (root / "dataset.json").is_file() and (root / "imagesTr").is_dir():
        return "nnunet"
    return "bids" if _folders(root, "sub-*/anat") + _folders(root, "sub-*/ses-*/anat") else "folders"


def _looks_like_brats(cohort: Iterable[_Scans], sources: Iterable[str]) -> bool:
    names = [name for scans in cohort for name in scans.names]
    if any(name in (f"{source}.nii.gz", f"{source}.nii") for name in names for source in sources):
        return False
    return any(re.fullmatch(r".*[-_](t1n|t1c|t1ce|t2f|flair|seg)\.nii(\.gz)?", name) for name in names)


# Patterns


def _found_patterns(
    settings: DataSettings, layout: str, root: Path, cohort: Iterable[_Scans], sources: Iterable[str]
) -> Iterator[_Pattern]:
    """Of sources that need not be there, those that are; a file is claimed once."""
    claimed: set[Path] = set()
    for source in sources:
        try:
            pattern = _pattern(settings, layout, root, source)
        except DataError:  # nnU-Net's dataset.json does not name it
            continue
        files = {scans.names[name] for scans in cohort for name in pattern.matches(scans)}
        if files - claimed:
            claimed |= files
            yield pattern


def _pattern(settings: DataSettings, layout: str, root: Path, source: str) -> _Pattern:
    own = settings.files.get(source) or (source if "*" in source or ".nii" in source else None)
    if own:
        key = f"data.files.{source}" if source in settings.files else "data.masks"
        return _Pattern(source, key, own, re.compile(translate(own)))
    spellings = SPELLINGS.get(source, re.escape(source))
    if layout == "folders":
        body, shown = re.escape(source), f"{source}.nii.gz"
    elif layout == "brats":
        body, shown = f".*[-_]({spellings})", f"*-{spellings}.nii.gz"
    elif layout == "bids":
        body = BIDS.get(source, f".*_{re.escape(source)}")
        shown = body
    else:
        body = "labelsTr/.*" if source == "seg" else f"imagesTr/.*_{_channel_number(root, source, spellings)}"
        shown = body
    return _Pattern(source, f"data.files.{source}", shown, re.compile(body + r"\.nii(\.gz)?", re.IGNORECASE))


def _channel_number(root: Path, source: str, spellings: str) -> str:
    """The four digits of a modality in the file names, from `dataset.json`."""
    path = root / "dataset.json"
    try:
        dataset = json.loads(path.read_text())
        channels = dict(dataset.get("channel_names") or dataset["modality"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(Fault(path, "has no channel_names", "Add them as nnU-Net describes").line()) from None
    for number, name in channels.items():
        if re.fullmatch(f"{re.escape(source)}|{spellings}", str(name), re.IGNORECASE):
            return f"{number:0>4}"
    what = f"has no channel {source}, it names {', '.join(map(str, channels.values()))}"
    raise DataError(Fault(path, what, f'Set data.files.{source}, such as "*_0000.nii.gz"').line())


# Splits


def _drawn_for_val(cohort: Sequence[_Scans], fraction: float) -> set[str]:
    """Where folders do not decide: the share of the persons whose id's sha256 is least."""
    people = sorted({person(each.id) for each in cohort}, key=lambda id: hashlib.sha256(id.encode()).digest())
    count = min(max(1, round(fraction * len(people))), len(people) - 1) if fraction > 0 else 0
    return set(people[:count])


# Faults


def _no_patients(root: Path, excluded: bool) -> str:
    if excluded:
        return Fault(root, "has no patients but those that data.exclude leaves out", "Shorten it").line()
    if any(root.glob("*.nii*")):
        return Fault(root, "holds scans that lie side by side", "Give each patient a folder of its own").line()
    held_out = [name for name in NEVER_TRAINED_ON if (root / name).is_dir()]
    what = f"has patients in none but {held_out[0]}, which is never trained on" if held_out else "has no patients"
    return Fault(root, what, "Make it a folder with a folder of .nii.gz files per patient").line()


def _id_faults(root: Path, cohort: Iterable[_Scans]) -> Iterator[Fault]:
    """Ids that some systems, and some people, take for one another."""
    alike: dict[str, str] = {}
    for each in cohort:
        other = alike.setdefault(unicodedata.normalize("NFC", each.id).casefold(), each.id)
        if other != each.id:
            what = f"has patients {other} and {each.id}, which differ in nothing but case or accents' encoding"
            yield Fault(root, what, "Rename one, or leave it out if it is the same patient")


def _split_faults(root: Path, cohort: Sequence[_Scans], allow_overlap: bool) -> Iterator[Fault]:
    places: dict[str, dict[Path, None]] = {}
    for each in cohort:
        places.setdefault(person(each.id), {})[each.folder.parent] = None
    for patient, found in places.items():
        if len(found) > 1 and not allow_overlap and not all(place.name in NEVER_TRAINED_ON for place in found):
            where = " and ".join(place.name for place in found)
            yield Fault(root, f"{patient} is in {where}", "Keep a patient in one split")
    if all(each.split in ("val", "test") for each in cohort):
        yield Fault(root, "has patients in val, but none in train", "Add training patients")


def _file_faults(root: Path, cohort: Sequence[_Scans], patterns: Iterable[_Pattern]) -> Iterator[Fault]:
    for pattern in patterns:
        matches = [pattern.matches(scans) for scans in cohort]
        if not any(matches):
            yield _missing_everywhere(root, cohort[0], pattern)
            continue
        for scans, names in zip(cohort, matches, strict=True):
            if not names:
                yield _missing(scans, pattern)
            elif len(names) > 1:
                what = f"has {len(names)} files for {pattern.source} ({pattern.shown}): {_listed(names)}"
                yield Fault(scans.folder, what, f"Keep one, or narrow {pattern.key}", scans.id)


def _unread(cohort: Iterable[_Scans], patterns: Sequence[_Pattern]) -> Iterator[Fault]:
    for scans in cohort:
        read = {name for pattern in patterns for name in pattern.matches(scans)}
        for name in sorted(scans.names.keys() - read):
            what = f"is of no channel ({name.replace(scans.id, '*')})"
            yield Fault(scans.names[name], what, "Name it in data.files if it is to be read", scans.id)


def _missing(scans: _Scans, pattern: _Pattern) -> Fault:
    what = f"{scans.id} has no file for {pattern.source} ({pattern.shown}), it has {_listed(scans.names)}"
    return Fault(scans.folder, what, "Add it, or leave the patient out", scans.id)


def _missing_everywhere(root: Path, first: _Scans, pattern: _Pattern) -> Fault:
    what = f"no patient has a file for {pattern.source} ({pattern.shown}), {first.id} has {_listed(first.names)}"
    likely = _likely(first, pattern.source)
    fix = f"Set {pattern.key} to a pattern" + (f', such as "{likely}"' if likely else "")
    return Fault(root, what, fix)


def _likely(scans: _Scans, source: str) -> str | None:
    """The pattern of the one file whose name has a word that others use for a modality."""
    words = {source, *SPELLINGS.get(source, source).split("|")}
    names = [name for name in scans.names if words & set(re.split("[^a-z0-9]+", name.lower()))]
    return names[0].replace(scans.id, "*") if len(names) == 1 else None


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
