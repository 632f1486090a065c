"""What is legal in a dataset, but odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from medgen.api.tables import DEFAULT_MASK, DataSettings
from medgen.data.scans import layouts
from medgen.data.scans.consistency import across_thick, twins
from medgen.data.scans.layouts import Survey
from medgen.data.scans.read_findings import File
from medgen.data.store.concerns import MOST_OF_A_HEAD
from medgen.errors import Problem

MOST_OF_A_VOLUME = 0.5
"""Share of a volume beyond which a mask is more likely its own inverse."""


def same_voxels(files: Iterable[File]) -> Iterator[Problem]:
    for first, scan in twins(file.scan() for file in files):
        if first.split == scan.split:
            yield Problem(
                scan.path,
                f"has the voxels of {first.path}",
                "Keep one, if they are one scan",
                scan.patient,
            )


def cut_across(survey: Survey, files: Iterable[File], settings: DataSettings) -> Iterator[Problem]:
    if settings.axes == 3:
        return
    firsts = {(file.patient.split, file.patient.id): file.finding.spacing for file in files}
    if found := across_thick([*firsts.values()], settings.axis):
        yield Problem(survey.root, *found)


def other_orientations(files: Sequence[File]) -> Iterator[Problem]:
    fix = "Axes are put in order when it is read; check that left is left"
    yield from _odd(files, "axes {}", lambda file: file.finding.orientation, fix)


def _odd(
    files: Sequence[File], noun: str, value: Callable[[File], str], fix: str
) -> Iterator[Problem]:
    """Files in which a value is not what it is in most."""
    counts = Counter(map(value, files)).most_common()
    if len(counts) < 2:
        return
    usual, count = counts[0]
    for file in files:
        if value(file) != usual:
            what = f"has {noun.format(value(file))}, but {count} of {len(files)} have {usual}"
            yield Problem(file.path, what, fix, file.patient.id)


def without_background(scans: Iterable[File]) -> Iterator[Problem]:
    for file in scans:
        if file.finding.background == "none":
            what = "has no background that a head stands out from, most or all of it counts as head"
            fix = (
                "Leave it out if it shows no head, take the air off if it has some (skull stripping); "
                "a part from within a head is read as it is"
            )
            yield Problem(file.path, what, fix, file.patient.id)


def odd_labels(files: Sequence[File], settings: DataSettings) -> Iterator[Problem]:
    for file in files:
        held = [label for label, _ in file.finding.labels if label]
        every = next((name for name, labels in file.masks.items() if not labels), None)
        others = [
            label for label in held if all(label not in labels for labels in file.masks.values())
        ]
        if every and held not in ([], [1]):
            fix = f"Choose, if not all are lesion, such as data.masks.{every}.labels=[{held[0]}]"
            yield Problem(
                file.path, f"holds {_listed(held)}, all read as {every}", fix, file.patient.id
            )
        elif others and not every:
            yield Problem(
                file.path,
                f"holds {_listed(others)}, of no mask",
                "Check data.masks",
                file.patient.id,
            )
    yield from _unseen(files, settings)


def _listed(labels: Sequence[int]) -> str:
    shown = ", ".join(map(str, labels[: layouts.SHOWN])) + (
        ", ..." if len(labels) > layouts.SHOWN else ""
    )
    return f"label{'s' if len(labels) > 1 else ''} {shown}"


def _unseen(files: Iterable[File], settings: DataSettings) -> Iterator[Problem]:
    """Labels that the recipe names and no file holds."""
    for name, mask in settings.masks.items():
        held = {label for file in files if name in file.masks for label, _ in file.finding.labels}
        for label in sorted(set(mask.labels) - held):
            yield Problem(
                settings.root,
                f"holds no label {label} of mask {name}",
                f"Check data.masks.{name}.labels",
            )


def odd_sizes(files: Iterable[File]) -> Iterator[Problem]:
    for file in files:
        for name, share in file.shares():
            if not share:
                yield Problem(
                    file.path,
                    f"has an empty mask {name}",
                    "Check it, if there are lesions",
                    file.patient.id,
                )
            elif share > MOST_OF_A_VOLUME:
                what = f"has a mask {name} of {share:.0%} of all voxels"
                yield Problem(file.path, what, "Check it, it may be inverted", file.patient.id)


def filling_head(
    survey: Survey, files: Iterable[File], heads: Mapping[Path, int]
) -> Iterator[Problem]:
    """Masks of most of the head. heads: voxels of the head on each file's grid."""
    for file in files:
        head = heads.get(survey.root / file.path, 0)
        for name, share in file.shares():
            filled = share * file.voxels / head if head else 0.0
            if filled > MOST_OF_A_HEAD:
                what = f"has a mask {name} that covers {min(filled, 1.0):.0%} of the head"
                held = [label for label, _ in file.finding.labels if label]
                labels = (
                    f"choose of its {_listed(held)} with data.masks.{name}.labels, or "
                    if len(held) > 1
                    else ""
                )
                fix = (
                    f"If it is not of lesions, {labels}set data.files.{file.source} to another file"
                )
                yield Problem(file.path, what, fix, file.patient.id)


def without_validation(survey: Survey) -> Iterator[Problem]:
    if all(patient.split != "val" for patient in survey.patients):
        yield Problem(
            survey.root, "has no patients for validation, so no best.pt is written", "Add patients"
        )


def without_masks(survey: Survey, settings: DataSettings) -> Iterator[Problem]:
    masks = {layouts.source(settings, name) for name in layouts.mask_names(settings)}
    if survey.sources and not masks & set(survey.sources):
        fix = f"""Name their files if there are any, such as data.files.{DEFAULT_MASK}="*_mask.nii.gz\""""
        yield Problem(
            survey.root, f"has no masks ({', '.join(sorted(masks))}) among its channels", fix
        )
