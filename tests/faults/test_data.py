"""Whatever is wrong with a dataset is told, all at once, with exit code 3; what is legal but odd is told and read.

Covers: medgen.data.scans.mask_check, medgen.data.scans.check, medgen.data.scans.examination, medgen.data.scans.finding,
medgen.data.scans.read_findings, medgen.data.scans.layouts.exclude, medgen.data.scans.oddities, medgen.data.scans.report.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
from data.cohort import make_patient, write_cohort, write_volume
from data.corpus import faulty

from medgen.data.scans import examination
from medgen.data.store import file_memo

SIZE = (20, 24, 10)
NO_MASKS = "has no masks (seg) among its channels"


class Checked(NamedTuple):
    """What `medgen data check --json` said: exit code, and fault and warning by file."""

    code: int
    table: dict[str, Any]
    shown: str

    def said(self, kind: str) -> dict[str, str]:
        return {each["file"]: each[kind] for each in self.table[f"{kind}s"]}

    @property
    def faults(self) -> dict[str, str]:
        return self.said("fault")

    @property
    def warnings(self) -> dict[str, str]:
        return self.said("warning")


@pytest.fixture
def checked(medgen, tmp_path) -> Callable[..., Checked]:
    def run(root: Path, *arguments: str) -> Checked:
        target = tmp_path / "report.json"
        result = medgen("data", "check", root, "data.workers=1", *arguments, "--json", target)
        assert "Traceback" not in result.err
        return Checked(result.code, json.loads(target.read_text()), result.out)

    return run


@pytest.fixture
def scans(tmp_path) -> Path:
    return write_cohort(tmp_path / "scans", channels=("bravo", "flair", "seg"))


@pytest.fixture
def trained(medgen, tmp_path):
    """`medgen train` on a folder, tiny."""

    def run(root: Path, *arguments: str, recipe: str = "bravo_rflow"):
        small = (
            "data.image_size=16",
            "data.workers=1",
            "network.unet.channels=[8,16]",
            "training.precision=fp32",
        )
        small += (
            "training.compile=false",
            "callbacks.previews=false",
            "training.steps=2",
            "training.batch_size=2",
        )
        return medgen(
            "train", recipe, f"data.root={root}", f"run.dir={tmp_path / 'run'}", *small, *arguments
        )

    return run


def edited(path: Path, **changes: Any) -> Path:
    """A volume written again with its voxels or its affine changed."""
    image = nib.load(path)
    data = (
        changes["data"](np.array(image.dataobj)) if "data" in changes else np.array(image.dataobj)
    )
    affine = changes["affine"](image.affine.copy()) if "affine" in changes else image.affine
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


# Damaged files


@pytest.mark.row("I1")
def test_every_damaged_file_is_listed_not_just_the_first(scans, checked, trained):
    """Cut, empty and changed files of three patients are one table with what to do, and the same lines in training."""
    cut, empty, changed = (
        scans / name
        for name in ("Mets_000/bravo.nii.gz", "Mets_001/seg.nii.gz", "Mets_003/bravo.nii.gz")
    )
    cut.write_bytes(cut.read_bytes()[:-3])
    empty.write_bytes(b"")
    changed.write_bytes(changed.read_bytes()[:-7] + b"\x55" + changed.read_bytes()[-6:])
    result = checked(scans)
    assert result.code == 3
    assert result.faults == {
        "Mets_000/bravo.nii.gz": "is cut off, its gzip stream does not end",
        "Mets_001/seg.nii.gz": "is empty",
        "Mets_003/bravo.nii.gz": "gzip checksum mismatch (file damaged)",
    }
    assert all(each["fix"] == "Copy it again" for each in result.table["faults"])
    assert result.shown.splitlines()[-1].startswith(
        "4 patients (3 train, 1 val), 12 files (bravo, flair, seg), 3 fault"
    )
    refused = trained(scans)
    assert refused.code == 3
    assert [
        line.split(": ")[1] for line in refused.err.splitlines() if line.startswith("medgen: ")
    ] == [str(path) for path in (cut, empty, changed)]


@pytest.mark.row("I1")
def test_patients_with_faults_can_be_left_out(scans, checked, trained):
    """What the check says to exclude, taken as `data.exclude`, leaves a dataset that passes and trains."""
    for name in ("Mets_000/bravo.nii.gz", "Mets_002/seg.nii.gz"):
        (scans / name).write_bytes(b"<html>")
    exclude = checked(scans).table["exclude"]
    assert exclude == ["Mets_000", "Mets_002"]
    setting = f"data.exclude={json.dumps(exclude)}"
    assert checked(scans, setting).code == 0
    assert trained(scans, setting).code == 0
    paths = 'data.exclude=["Mets_000/bravo.nii.gz", "Mets_002/"]'
    assert checked(scans, paths).code == 0


@pytest.mark.row("I1")
def test_a_misspelt_exclusion_is_a_fault_with_a_likely_name(scans, checked):
    """A patient who was to be left out and is not would be trained on in silence."""
    result = checked(scans, 'data.exclude=["Mets_0002"]')
    assert result.code == 3
    assert [(each["fault"], each["fix"]) for each in result.table["faults"]] == [
        (
            "has no patient or file Mets_0002 to leave out",
            "Correct it in data.exclude, perhaps to Mets_002",
        )
    ]


@pytest.mark.row("V1")
def test_a_checkpoint_names_no_excluded_patient(scans, trained, tmp_path):
    """`data.exclude` stays on this machine."""
    assert trained(scans, 'data.exclude=["Mets_001"]').code == 0
    assert b"Mets_001" not in (tmp_path / "run" / "latest.pt").read_bytes()


# Malformed files, one by one


@pytest.mark.row("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8")
def test_each_malformed_file_is_named_with_its_fault(tmp_path, checked):
    """All of the corpus at once, a patient per file: each is listed with its own fault, and nothing else is."""
    cases = [case for case in faulty(tmp_path) if case.path.suffix in (".nii", ".gz")]
    cases = [case for case in cases if not case.path.is_dir() and not case.path.is_symlink()]
    assert len(cases) > 60
    expected = {}
    for number, case in enumerate(cases):
        folder = tmp_path / "scans" / f"p{number:03d}"
        write_volume(
            folder / "other.nii", make_patient(np.random.default_rng(number), SIZE)["bravo"]
        )
        name = ("seg" if case.mask else "bravo") + "".join(case.path.suffixes)
        os.rename(case.path, folder / name)
        expected[f"p{number:03d}/{name}"] = case.words
    result = checked(
        tmp_path / "scans", 'data.files.bravo="bravo.nii*"', 'data.files.seg="seg.nii*"'
    )
    damaged = {file: what for file, what in result.faults.items() if file.endswith((".nii", ".gz"))}
    assert result.code == 3
    assert damaged.keys() == expected.keys()
    assert [file for file, words in expected.items() if words not in damaged[file]] == []


@pytest.mark.row("I3")
def test_the_policy_for_nan_is_explicit(scans, checked):
    """NaN is a fault with count and place; with `data.nan = "zero"` it is a warning."""

    def spoil(data):
        data = data.astype(np.float32)
        data[3, 4, 5] = np.nan
        return data

    edited(scans / "Mets_000" / "bravo.nii.gz", data=spoil)
    told = "has 1 voxels that are NaN or infinite, the first at [3, 4, 5]"
    assert checked(scans).faults == {"Mets_000/bravo.nii.gz": told}
    result = checked(scans, "data.nan=zero")
    assert (result.code, result.warnings) == (0, {"Mets_000/bravo.nii.gz": told})


# What is odd among files


@pytest.mark.row("I4")
def test_voxels_unlike_most_are_no_fault_but_a_head_of_another_size_is_warned_of(tmp_path, checked):
    """Issue 10, point 8: slices get one scale, so other voxels change nothing; a wrong unit makes a head too large."""
    root = write_cohort(tmp_path / "scans", 4, channels=("bravo",))
    edited(root / "Mets_001" / "bravo.nii.gz", affine=lambda a: a @ np.diag([1, 1, 2, 1]))
    assert checked(root).warnings == {str(root): NO_MASKS}
    edited(root / "Mets_002" / "bravo.nii.gz", affine=lambda a: a @ np.diag([2.54, 2.54, 2.54, 1]))
    warnings = checked(root).warnings
    assert warnings.keys() == {str(root), "Mets_002/bravo.nii.gz"}
    assert warnings["Mets_002/bravo.nii.gz"] == "shows a head 51 mm wide, where the median is 20 mm"


def test_a_recipe_tells_of_lesions_too_small_for_its_slices(scans, checked):
    """Issue 10, point 9: how many, how large, and what would show them; without a recipe there are no slices yet."""
    told = "are too small for 8 px of "
    assert not any(told in each for each in checked(scans, "data.image_size=8").warnings.values())
    warnings = checked(
        scans, "--recipe", "bravo_rflow", "data.image_size=8", "network.unet.channels=[8,16]"
    ).warnings
    assert told in warnings[str(scans)]
    assert "lesions of seg are too small for" in warnings[str(scans)]


def test_a_mask_in_the_air_is_a_fault_that_names_both_files(scans, checked, trained):
    """Issue 10, point 10: more than half of it; the patient can be left out."""
    path = edited(
        scans / "Mets_001" / "seg.nii.gz",
        data=lambda d: np.uint8(np.indices(d.shape).max(axis=0) < 2),
    )
    result = checked(scans)
    assert result.code == 3
    assert result.faults == {
        "Mets_001/seg.nii.gz": "marks lesions where bravo.nii.gz shows no head, 100% of their voxels"
    }
    assert result.table["exclude"] == ["Mets_001"]
    refused = trained(scans)
    assert refused.code == 3
    assert f"{path}: marks lesions where bravo.nii.gz shows no head" in refused.err


@pytest.mark.row("I5")
def test_another_orientation_is_warned_of_and_is_the_same_head(scans, checked, cohort):
    """A patient stored LPS among RAS passes, with a warning per file."""
    for name in ("bravo", "flair", "seg"):
        path = scans / "Mets_001" / f"{name}.nii.gz"
        nib.save(nib.load(path).as_reoriented(np.array([[0, -1], [1, -1], [2, 1]])), path)
    result = checked(scans)
    assert result.code == 0
    assert result.warnings == {
        f"Mets_001/{name}.nii.gz": "has axes LPS, but 9 of 12 have RAS"
        for name in ("bravo", "flair", "seg")
    }


@pytest.mark.row("I5")
def test_oblique_is_warned_of(tmp_path, checked):
    """A head turned by 20 degrees is read, and said."""
    write_cohort(tmp_path / "scans", 3, channels=("bravo",))
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    edited(tmp_path / "scans" / "Mets_001" / "bravo.nii.gz", affine=lambda a: turn @ a)
    assert checked(tmp_path / "scans").warnings == {
        str(tmp_path / "scans"): NO_MASKS,
        "Mets_001/bravo.nii.gz": "is oblique by 20.0 degrees",
    }


# Images and masks that do not fit each other


def shifted(affine):
    affine[0, 3] += affine[0, 0]
    return affine


def flipped(affine):
    affine[0] *= -1
    return affine


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"data": lambda data: data[..., :-1]},
            "has 20 x 24 x 9 voxels, but Mets_001/bravo.nii.gz has 20 x 24 x 10",
        ),
        (
            {"affine": shifted},
            "spans (1, 0, 0) to (20, 23, 18) mm, but Mets_001/bravo.nii.gz spans (0, 0, 0) to (19, 23, 18) mm",
        ),
        (
            {"affine": flipped},
            "spans (-19, 0, 0) to (0, 23, 18) mm, but Mets_001/bravo.nii.gz spans (0, 0, 0) to (19, 23, 18) mm",
        ),
        (
            {"affine": lambda a: a @ np.diag([1, 1, 1.5, 1])},
            "spans (0, 0, 0) to (19, 23, 27) mm, but Mets_001/bravo.nii.gz spans (0, 0, 0) to (19, 23, 18) mm",
        ),
    ],
    ids=["slices", "shift", "flip", "spacing"],
)
@pytest.mark.row("I6", "I7")
def test_a_mask_that_does_not_fit_names_both_files_and_values(
    scans, checked, trained, change, told
):
    """Unequal slice counts, a shift by one voxel, a left-right flip and another spacing are errors, not warnings."""
    edited(scans / "Mets_001" / "seg.nii.gz", **change)
    result = checked(scans)
    assert result.code == 3
    assert result.faults == {"Mets_001/seg.nii.gz": told}
    assert result.table["exclude"] == ["Mets_001"]
    refused = trained(scans)
    assert refused.code == 3
    assert told.replace("Mets_001", str(scans / "Mets_001")) in refused.err


@pytest.mark.row("I7")
def test_a_shift_by_one_small_voxel_is_an_error(tmp_path, checked):
    """Voxels of 0.2 mm in a field of view of 400 mm: one voxel is half a thousandth of it, and still told."""
    data = make_patient(np.random.default_rng(0), (30, 30, 8))
    for name in ("bravo", "seg"):
        write_volume(tmp_path / "scans" / "p1" / f"{name}.nii.gz", data[name], (0.2, 13, 13))
    write_cohort(tmp_path / "scans", 2, channels=("bravo", "seg"))
    edited(tmp_path / "scans" / "p1" / "seg.nii.gz", affine=shifted)
    assert checked(tmp_path / "scans").faults.keys() == {"p1/seg.nii.gz"}


@pytest.mark.row("I7")
def test_what_is_missing_or_there_twice_or_of_no_use_is_told(scans, checked):
    """A missing partner and two files for one channel are faults, beside other faults; a file of no channel is not."""
    (scans / "Mets_000" / "seg.nii.gz").unlink()
    shutil.copy(scans / "Mets_001" / "flair.nii.gz", scans / "Mets_001" / "FLAIR.nii.gz")
    (scans / "Mets_002" / "bravo.nii.gz").write_bytes(b"")
    shutil.copy(scans / "Mets_003" / "bravo.nii.gz", scans / "Mets_003" / "swi.nii.gz")
    result = checked(scans)
    assert result.faults == {
        "Mets_000": "Mets_000 has no file for seg (seg.nii.gz), it has bravo.nii.gz, flair.nii.gz",
        "Mets_001": "has 2 files for flair (flair.nii.gz): FLAIR.nii.gz, flair.nii.gz",
        "Mets_002/bravo.nii.gz": "is empty",
    }
    assert result.table["exclude"] == ["Mets_000", "Mets_001", "Mets_002"]
    assert result.warnings == {"Mets_003/swi.nii.gz": "is of no channel (swi.nii.gz)"}


@pytest.mark.row("I7")
def test_ids_that_differ_in_case_or_encoding_only_are_a_fault(scans, checked):
    """On many disks they are one folder, and to a reader they are one patient."""
    for number, id in enumerate(
        ("METS_000", *(unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD")))
    ):
        bravo = make_patient(np.random.default_rng(number + 10), SIZE)["bravo"]
        write_volume(scans / id / "bravo.nii.gz", bravo)
    faults = [each["fault"] for each in checked(scans).table["faults"] if "differ" in each["fault"]]
    assert len(faults) == 2
    assert faults[0].startswith("has patients METS_000 and Mets_000, ")


@pytest.mark.row("I7")
def test_names_with_spaces_umlauts_and_line_breaks_are_read_and_told(tmp_path, checked):
    """Any name is a name; in the table it is one line."""
    for number, name in enumerate(("a b", "Müller, 50 %", "two\nlines")):
        data = make_patient(np.random.default_rng(number), SIZE)
        for channel in ("bravo", "seg"):
            write_volume(tmp_path / "scans" / name / f"{channel}.nii.gz", data[channel])
    assert checked(tmp_path / "scans").code == 0
    (tmp_path / "scans" / "two\nlines" / "seg.nii.gz").write_bytes(b"")
    result = checked(tmp_path / "scans")
    assert result.faults == {"two\nlines/seg.nii.gz": "is empty"}
    assert "two\\nlines/seg.nii.gz" in result.shown


@pytest.mark.row("I7")
def test_symlinks_are_followed_and_loops_are_told(scans, checked, tmp_path):
    """A patient's folder may be a link; a file that is a link to itself is a fault, a folder that is one is nothing."""
    (scans / "Mets_000").rename(tmp_path / "elsewhere")
    (scans / "Mets_000").symlink_to(tmp_path / "elsewhere")
    (scans / "loop").symlink_to(scans / "loop")
    (scans / "Mets_001" / "up").symlink_to(scans)
    (scans / "Mets_002" / "seg.nii.gz").unlink()
    (scans / "Mets_002" / "seg.nii.gz").symlink_to("seg.nii.gz")
    result = checked(scans)
    assert result.faults == {
        "Mets_002/seg.nii.gz": "cannot be read (Too many levels of symbolic links)"
    }
    assert result.table["files"] == 12


@pytest.mark.row("I7")
def test_a_folder_that_may_not_be_read_is_no_empty_one(scans, medgen, monkeypatch):
    """A patient does not vanish for lack of permission; root, who may read anything, is told what others are."""
    scandir = os.scandir

    def denied(path="."):
        if str(path).endswith("Mets_001"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    result = medgen("data", "check", scans)
    assert result.code == 3
    assert "Mets_001: cannot be read (Permission denied)" in result.err


# Labels and lesions


@pytest.mark.row("I8")
def test_odd_masks_are_told_and_read(scans, checked):
    """0/255, {0, 2}, empty and full masks: each is warned of, with what it is read as, and none is a fault."""
    for number, change in enumerate(
        (lambda d: d * 255, lambda d: d * 2, lambda d: d * 0, lambda d: d * 0 + 1)
    ):
        edited(
            scans / f"Mets_00{number}" / "seg.nii.gz", data=lambda data, change=change: change(data)
        )
    result = checked(scans)
    assert result.code == 0
    assert result.warnings == {
        "Mets_000/seg.nii.gz": "holds label 255, all read as seg",
        "Mets_001/seg.nii.gz": "holds label 2, all read as seg",
        "Mets_002/seg.nii.gz": "has an empty mask seg",
        "Mets_003/seg.nii.gz": "has a mask seg of 100% of all voxels",
    }


@pytest.mark.row("I8")
def test_labels_of_no_mask_and_masks_without_their_label_are_told(scans, checked):
    """With `[data.masks]` a label that no mask names, and one that no file holds, are both warned of."""
    for number in range(4):
        edited(scans / f"Mets_00{number}" / "seg.nii.gz", data=lambda data: data * 3)
    warnings = checked(scans, "data.masks.core.labels=[1, 3]").table["warnings"]
    assert [each["warning"] for each in warnings] == ["holds no label 1 of mask core"]
    warnings = checked(scans, "data.masks.core.labels=[1]").table["warnings"]
    assert {each["warning"] for each in warnings} == {
        "holds label 3, of no mask",
        "has an empty mask core",
        "holds no label 1 of mask core",
    }


@pytest.mark.row("I8")
def test_lesions_are_counted_and_sized_in_mm(tmp_path, checked):
    """Parts that touch at a corner are one lesion; volumes are in mm3 whatever the voxels."""
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[1:3, 1:3, 1:3] = mask[3, 3, 3] = mask[8, 8, 8] = mask[6:8, 1, 1] = 1
    write_volume(tmp_path / "scans" / "p1" / "seg.nii.gz", mask, (2, 2, 2.5))
    write_volume(tmp_path / "scans" / "p2" / "seg.nii.gz", np.roll(mask, 2), (2, 2, 2.5))
    result = checked(tmp_path / "scans", "data.masks.small.labels=[1]")
    assert result.table["lesions"] == {
        "small": {
            "count": 6,
            "patients": 2,
            "specks": 2,
            "mm3": {"5 %": 10, "50 %": 20, "95 %": 90},
        }
    }
    assert "small: 6 lesions in 2 patients, median 0.02 mL" in result.shown


# Splits


def split_by_hand(root: Path, channels=("bravo", "seg")) -> Path:
    write_cohort(root / "train", 3, channels=channels)
    write_cohort(root / "val", 1, seed=1, channels=channels)
    (root / "val" / "Mets_000").rename(root / "val" / "Mets_900")
    return root


@pytest.mark.parametrize("other", ["val", "test", "test_new"])
@pytest.mark.row("I9")
def test_an_id_in_two_splits_is_refused(tmp_path, checked, trained, other):
    """The same folder name in train and in val, test or test_new is a patient in both, unless that is allowed."""
    root = split_by_hand(tmp_path / "scans")
    write_cohort(root / other, 1, seed=2, channels=("bravo", "seg"))
    result = checked(root)
    assert (result.code, result.faults) == (3, {str(root): f"Mets_000 is in train and {other}"})
    refused = trained(root)
    assert refused.code == 3
    assert f"{root}: Mets_000 is in train and {other}. " in refused.err
    assert checked(root, "data.allow_patient_overlap=true").code == 0
    assert trained(root, "data.allow_patient_overlap=true").code == 0


@pytest.mark.row("I9")
def test_the_same_voxels_under_another_name_are_refused(tmp_path, checked, trained):
    """Saved anew, with other compression, type and name: the voxels tell that it is the same patient."""
    root = split_by_hand(tmp_path / "scans")
    image = nib.load(root / "train" / "Mets_002" / "bravo.nii.gz")
    nib.save(
        nib.Nifti1Image(np.array(image.dataobj, np.float32), image.affine),
        root / "val" / "Mets_900" / "bravo.nii.gz",
    )
    told = "has the voxels of train/Mets_002/bravo.nii.gz, but is for val and that for train"
    result = checked(root)
    assert (result.code, result.faults) == (3, {"val/Mets_900/bravo.nii.gz": told})
    refused = trained(root)
    assert refused.code == 3
    assert (
        f"medgen: {root}/val/Mets_900/bravo.nii.gz: {told.replace('train/', f'{root}/train/', 1)}. "
        in refused.err
    )
    allowed = checked(root, "data.allow_patient_overlap=true")
    assert (allowed.code, allowed.warnings) == (0, {"val/Mets_900/bravo.nii.gz": told})
    assert trained(root, "data.allow_patient_overlap=true").code == 0


@pytest.mark.row("I9")
def test_a_store_that_is_there_already_hides_no_overlap(tmp_path, trained):
    """The content is remembered with the slices, so splits that are drawn otherwise later are checked too."""
    root = write_cohort(tmp_path / "scans", 4, channels=("bravo", "seg"))
    shutil.copy(root / "Mets_000" / "bravo.nii.gz", root / "Mets_001" / "bravo.nii.gz")
    codes = {}
    for fraction in (0.0, 0.25, 0.5):
        codes[fraction] = trained(
            root, f"data.val_fraction={fraction}", f"run.dir={tmp_path / str(fraction)}"
        ).code
    assert codes[0.0] == 0
    assert 3 in codes.values()


@pytest.mark.row("I9")
def test_masks_alone_tell_patients_apart_unless_they_are_empty(tmp_path, trained):
    """In a mask model the mask is the sample; two empty ones are no one's."""
    root = split_by_hand(tmp_path / "scans")
    for place in ("train/Mets_002", "val/Mets_900"):
        edited(root / place / "seg.nii.gz", data=lambda data: data * 0)
    assert trained(root, recipe="seg_rflow").code == 0
    shutil.copy(
        root / "train" / "Mets_000" / "seg.nii.gz", root / "val" / "Mets_900" / "seg.nii.gz"
    )
    refused = trained(root, f"run.dir={tmp_path / 'other'}", recipe="seg_rflow")
    assert refused.code == 3
    assert "val/Mets_900/seg.nii.gz: has the voxels of " in refused.err


@pytest.mark.row("I9")
def test_two_patients_with_the_same_voxels_in_one_split_are_warned_of(scans, checked):
    """It is most likely one patient, counted twice."""
    shutil.copy(scans / "Mets_000" / "flair.nii.gz", scans / "Mets_001" / "flair.nii.gz")
    result = checked(scans, "data.val_fraction=0.0")
    assert result.code == 0
    assert result.warnings["Mets_001/flair.nii.gz"] == "has the voxels of Mets_000/flair.nii.gz"


# Nothing to train on or to validate with


@pytest.mark.row("I10")
def test_nothing_to_train_on_is_refused(tmp_path, trained):
    """No patients, and a single slice, are exit 3 with the settings that could help."""
    (tmp_path / "empty").mkdir()
    refused = trained(tmp_path / "empty")
    assert (refused.code, "empty: has no patients. " in refused.err) == (3, True)
    root = write_cohort(tmp_path / "scans", 1, channels=("bravo", "seg"))
    for name in ("bravo", "seg"):
        edited(root / "Mets_000" / f"{name}.nii.gz", data=lambda data: data[..., 4:6])
    refused = trained(root, "data.min_foreground=0.0", "data.lesion_only=true", "data.min_lesion=8")
    assert refused.code == 3
    assert "training slices" in refused.err


@pytest.mark.row("I10")
def test_without_validation_there_is_no_best_and_that_is_said(tmp_path, trained):
    """One patient is trained on, with a warning; best.pt is not written, latest.pt is."""
    root = write_cohort(tmp_path / "scans", 1, channels=("bravo", "seg"))
    result = trained(root)
    assert result.code == 0
    assert "no slice is for validation, so no best.pt is written. " in result.err
    written = {path.name for path in (tmp_path / "run").glob("*.pt")}
    assert "latest.pt" in written
    assert "best.pt" not in written


# The command itself


def test_what_was_verified_is_not_read_again_until_it_changes(scans, checked, monkeypatch):
    """The second check reads nothing; a file that changed is read again, alone; other settings ask anew."""
    monkeypatch.setattr(file_memo, "SETTLED", -1.0)
    read: list[str] = []
    examine = examination.examine
    monkeypatch.setattr(
        examination, "examine", lambda job: read.append(job.path.name) or examine(job)
    )
    first = checked(scans)
    assert len(read) == 12
    read.clear()
    second = checked(scans)
    assert read == []
    assert second == first
    edited(scans / "Mets_002" / "flair.nii.gz", data=lambda data: data * 0)
    third = checked(scans)
    assert read == ["flair.nii.gz"]
    assert third.faults == {"Mets_002/flair.nii.gz": "is constant, every voxel is 0"}
    read.clear()
    checked(scans, "data.upper=98.0")
    assert len(read) == 12


def test_faulty_files_are_read_again(scans, checked, monkeypatch):
    """Only what passed is remembered."""
    monkeypatch.setattr(file_memo, "SETTLED", -1.0)
    (scans / "Mets_002" / "flair.nii.gz").write_bytes(b"")
    first = checked(scans)
    assert checked(scans) == first
    assert first.code == 3


def test_the_second_check_imports_nothing_that_is_slow(scans):
    """Neither torch nor monai, ever, and scipy only where a file is read."""
    code = """
import sys
from medgen.cli.main import main
from medgen.data.store import file_memo
file_memo.SETTLED = -1.0
try:
    main(["data", "check", sys.argv[1], "data.workers=1"])
except SystemExit as ended:
    assert not ended.code
print(*({"torch", "monai", "scipy.ndimage", "nilearn", "tensorboard"} & sys.modules.keys()))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    imported = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, scans], env=environment, capture_output=True, check=True
        )
        imported.append(done.stdout.decode().splitlines()[-1])
    assert imported == ["scipy.ndimage", ""]


def test_several_processes_find_the_same(scans, checked):
    """The result does not depend on `data.workers`."""
    (scans / "Mets_001" / "bravo.nii.gz").write_bytes(b"")
    assert checked(scans, "data.workers=2") == checked(scans)


def test_json_on_stdout_is_only_json(scans, medgen):
    """`--json -` is for pipes: the table goes to stderr."""
    result = medgen("data", "check", scans, "data.workers=1", "--json", "-")
    assert json.loads(result.out)["patients"] == 4
    assert "4 patients" in result.err


def test_a_recipe_says_what_to_check(scans, checked, medgen):
    """With `--recipe` the channels are those of its mode: others are not read, and each must be there."""
    assert checked(scans, "--recipe", "bravo_rflow").table["channels"] == ["bravo", "seg"]
    result = checked(scans, "--recipe", "dual_rflow")
    assert result.code == 3
    assert "no patient has a file for t1_pre" in result.table["faults"][0]["fault"]


def test_mistakes_in_settings_are_mistakes_of_usage(scans, medgen):
    """All at once, with likely names, exit 2."""
    result = medgen("data", "check", scans, "data.workrs=2", "training.steps=3")
    assert result.code == 2
    assert "Did you mean workers?" in result.err
    assert "training: no such key" in result.err


def test_a_folder_without_known_names_says_how_to_name_them(tmp_path, checked):
    """Patterns are suggested where no name is known."""
    write_volume(
        tmp_path / "scans" / "p1" / "x17.nii.gz",
        make_patient(np.random.default_rng(0), SIZE)["bravo"],
    )
    result = checked(tmp_path / "scans")
    assert result.code == 3
    assert "has no file of a name that is known (t1_pre, t1_gd" in result.shown


def test_a_dataset_that_is_none_is_one_line(tmp_path, medgen):
    """A folder that does not exist is exit 3."""
    result = medgen("data", "check", tmp_path / "gone")
    assert (result.code, result.out) == (3, "")
    assert result.err == f"medgen: {tmp_path / 'gone'}: does not exist. Check the path.\n"


def test_warnings_come_in_the_same_order_each_time(scans):
    for name in ("b", "a", "d", "c", "f", "e"):
        shutil.copy(scans / "Mets_001/seg.nii.gz", scans / f"Mets_001/{name}.nii.gz")
    command = [
        sys.executable,
        "-m",
        "medgen",
        "data",
        "check",
        scans,
        "data.workers=1",
        "--json",
        "-",
    ]
    said = [
        subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    ]
    told = [
        warning["file"]
        for warning in json.loads(said[0])["warnings"]
        if "of no channel" in warning["warning"]
    ]
    assert told == [f"Mets_001/{name}.nii.gz" for name in "abcdef"]
    assert said[0] == said[1]


def test_a_dataset_without_masks_says_so(scans, checked, medgen):
    for path in scans.glob("*/seg.nii.gz"):
        path.unlink()
    result = checked(scans)
    assert (result.code, result.warnings[str(scans)]) == (0, NO_MASKS)
    assert (
        str(scans)
        not in checked(scans, "mode.bravo.condition=[]", "--recipe", "bravo_rflow").warnings
    )


def test_where_no_file_is_read_the_summary_says_that(scans, checked):
    for path in scans.glob("*/*.nii.gz"):
        path.rename(path.with_name(f"x{path.name}"))
    assert ", no file that is read, 1 fault" in checked(scans).shown


def test_a_mode_that_reads_a_mask_of_no_name_is_a_mistake_of_the_recipe(scans, medgen):
    """With masks named, `seg` would be read as a scan; the likely name is given."""
    result = medgen("recipe", "show", "bravo_rflow", "data.masks.segm.labels=[1]")
    assert result.code == 2
    assert (
        "data.masks: got segm, expected seg among them, which mode.bravo reads. Did you mean segm?"
        in result.err
    )
    fixed = medgen(
        "recipe",
        "show",
        "bravo_rflow",
        "data.masks.segm.labels=[1]",
        'mode.bravo.condition=["segm"]',
    )
    assert fixed.code == 0


@pytest.mark.row("I10")
def test_the_background_of_each_scan_is_shown(checked, tmp_path):
    """Point 2: for each channel in what is printed, for each file in the table for programs."""
    rng, scans = (
        np.random.default_rng(0),
        write_cohort(tmp_path / "scans", channels=("bravo", "seg")),
    )
    path = sorted(scans.rglob("bravo.nii*"))[0]
    data = np.asarray(nib.load(path).dataobj, np.float32)
    bright = data / data.max() * 300 + 100 * (data > 0)
    nib.save(
        nib.Nifti1Image(
            np.hypot(bright, rng.rayleigh(5, data.shape)).astype(np.float32), nib.load(path).affine
        ),
        path,
    )
    result = checked(scans)
    assert result.table["backgrounds"]["bravo"]["noise"] == 1
    kinds = {each["file"]: each["background"] for each in result.table["scans"]}
    assert kinds.pop(path.relative_to(scans).as_posix()) == "noise"
    assert set(kinds.values()) == {"constant"}
    assert f"bravo: background constant ({len(kinds)}), noise (1)" in " ".join(result.shown.split())
