"""Datasets as people arrange them: groups of patients, visits, folders per modality, splits by other names, links.

Covers: medgen.data.scans.layouts.absent, medgen.data.scans.layouts.grouping, medgen.data.scans.layouts.left_out,
medgen.data.scans.layouts.by_folders, medgen.data.scans.layouts.misplaced, medgen.data.scans.layouts.people,
medgen.data.scans.layouts.split_kinds, medgen.data.scans.layouts.survey, medgen.data.scans.layouts.types,
medgen.data.scans.layouts.walk, medgen.data.scans.layouts.words.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from data.cohort import write_volume

from medgen.api.tables import DataSettings
from medgen.data.scans.check import check
from medgen.data.scans.layouts import Survey, find, person, survey
from medgen.data.store.store import open_store
from medgen.errors import DataError
from medgen.system.names import key, raw

NOTHING = np.zeros((2, 2, 2), np.uint8)
PATIENTS = ("P00", "P01", "P02", "P03")
CHANNELS = ("bravo", "seg")


def write(root: Path, *names: str) -> Path:
    for name in names:
        write_volume(root / name, NOTHING)
    return root


def patients(root: Path, *above: str, ids: tuple[str, ...] = PATIENTS) -> Path:
    """A folder with `bravo` and `seg` for each patient, below each of some folders."""
    return write(
        root,
        *(
            f"{place}{id}/{name}.nii.gz"
            for place in above or ("",)
            for id in ids
            for name in CHANNELS
        ),
    )


def look(root: Path, *channels: str, **settings: object) -> Survey:
    return survey(DataSettings(root=root, **settings), channels or CHANNELS)


def splits(found: Survey) -> dict[str, str]:
    return {patient.id: patient.split for patient in found.patients}


def left_out(root: Path, **settings: object) -> list[str]:
    told: list[str] = []
    find(DataSettings(root=root, **settings), CHANNELS, told.append)
    return [line.removeprefix(f"{root}: ") for line in told]


def refusal(root: Path, *channels: str, **settings: object) -> str:
    """The one line."""
    with pytest.raises(DataError) as caught:
        find(DataSettings(root=root, **settings), channels or CHANNELS)
    (line,) = caught.value.lines
    return line


# What would vanish without a word (point 7)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "validation"),
        ("Train", "Val"),
        ("training", "VALID"),
        ("TrainingData", "ValidationData"),
        ("train_set", "val-set"),
        ("BraTS2020_TrainingData", "BraTS2020_ValidationData"),
    ],
)
def test_the_usual_names_of_splits_are_understood(tmp_path, train, val):
    """Point 7."""
    patients(tmp_path / train, ids=("P0", "P1"))
    patients(tmp_path / val, ids=("P2",))
    patients(tmp_path / "Testing", ids=("P3",))
    found = look(tmp_path)
    assert splits(found) == {"P0": "train", "P1": "train", "P2": "val", "P3": "test"}
    assert not found.faults + found.left_out


def test_a_patient_named_after_a_split_is_a_patient(tmp_path):
    """Point 7."""
    write(
        tmp_path,
        *(
            f"BraTS20_Training_00{k}/BraTS20_Training_00{k}_{name}.nii"
            for k in (1, 2)
            for name in ("t1ce", "seg")
        ),
    )
    assert len(splits(look(tmp_path))) == 2


def test_patients_beside_the_splits_are_told_of_once(tmp_path):
    """Point 7."""
    patients(tmp_path / "train", ids=("P0", "P1"))
    patients(tmp_path / "val", ids=("P2",))
    patients(tmp_path, ids=("P3", "P4"))
    (line,) = left_out(tmp_path)
    assert line.startswith(
        "2 folders with scans lie beside the folders of the splits and are left out: first P3 (bravo"
    )
    assert line.endswith("Move them into one of these folders, or elsewhere.")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("a.hdr", "a.img"), ".hdr/.img pairs"),
        (("IM0.dcm",), "DICOM files"),
        (("DICOM/IM000001",), "DICOM files"),
        (("a.mgz",), "MGH files"),
        (("a.nrrd",), "NRRD files"),
        (("a.mha",), "MetaImage files"),
        (("a.PAR", "a.REC"), "PAR/REC files"),
        (("a.nii.bz2",), "packed NIfTI files"),
        (("bravo.npy",), "numpy arrays"),
    ],
)
def test_patients_in_a_format_that_is_not_read_are_told_of_once_with_what_to_do(
    tmp_path, names, told
):
    """Point 7."""
    patients(tmp_path, ids=("P0", "P1"))
    for patient in ("P2", "P3"):
        for name in names:
            (tmp_path / patient / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / patient / name).write_bytes(bytes(128) + b"DICM")
    (line,) = left_out(tmp_path)
    assert line.startswith(f"2 folders hold {told} and no NIfTI and are left out: first P2 (")
    assert "Convert them to .nii.gz" in line


@pytest.mark.parametrize("end", ["part", "crdownload", "filepart", "tmp", "download"])
def test_patients_whose_download_broke_off_are_told_of_once(tmp_path, end):
    """Point 7."""
    patients(tmp_path, ids=("P0", "P1"))
    for patient in ("P2", "P3"):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / f"bravo.nii.gz.{end}").write_bytes(b"x")
    (line,) = left_out(tmp_path)
    assert line.startswith(
        "2 folders hold unfinished downloads and no NIfTI and are left out: first P2 (bravo.nii.gz."
    )
    assert line.endswith("Download them again, or remove them.")


def test_where_nobody_has_nifti_the_line_says_what_there_is(tmp_path):
    """Point 7."""
    for patient in PATIENTS:
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "IM0.dcm").write_bytes(b"")
    assert "4 folders hold DICOM files and no NIfTI" in refusal(tmp_path)


def test_linked_folders_are_followed_and_loops_survived(tmp_path):
    """Point 7."""
    patients(tmp_path / "store", ids=("S0", "S1"))
    root = patients(tmp_path / "scans", ids=("P2", "P3"))
    (root / "P0").mkdir()
    os.symlink(tmp_path / "store" / "S0", root / "P0" / "anat")
    os.symlink(tmp_path / "store" / "S1", root / "P1")
    for target, link in (("..", "P2/up"), (".", "P2/self"), ("../P2", "P2/again"), ("..", "P0/up")):
        os.symlink(target, root / link)
    found = look(root)
    assert [*splits(found)] == ["P0", "P1", "P2", "P3"]
    assert not found.faults + found.left_out + found.unread


def test_a_file_counts_once_however_many_links_lead_to_it(tmp_path):
    """Point 7."""
    patients(tmp_path, ids=("P0", "P1"))
    os.symlink(tmp_path / "P0", tmp_path / "P2")
    os.symlink("bravo.nii.gz", tmp_path / "P1" / "bravo.nii")
    found = look(tmp_path)
    assert [*splits(found)] == ["P0", "P1"]
    assert not found.faults
    assert [fault.what for fault in found.left_out] == [
        "1 link leads to the files of another patient and is left out: P2 (P0)"
    ]


def test_empty_folders_and_links_to_nothing_are_told_of(tmp_path):
    """Point 7."""
    patients(tmp_path, ids=("P0", "P1"))
    (tmp_path / "P2").mkdir()
    os.symlink(tmp_path / "gone", tmp_path / "P3")
    assert sorted(line.split(":")[0] for line in left_out(tmp_path)) == [
        "1 folder is empty and is left out",
        "1 link leads nowhere and is left out",
    ]


def test_junk_of_systems_makes_no_noise(tmp_path):
    """Point 7."""
    patients(tmp_path, ids=("P0", "P1"))
    for name in (
        "P0/._bravo.nii.gz",
        ".DS_Store",
        "Thumbs.db",
        "__MACOSX/P0/._bravo.nii.gz",
        "P1/@eaDir/bravo.nii.gz/x",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("no scan")
    found = look(tmp_path)
    assert len(found.patients) == 2
    assert not found.faults + found.left_out + found.unread


# Time points of a person (point 11)


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("sub-01/ses-02", "sub-01"),
        ("sub-01_ses-2", "sub-01"),
        ("sub-01_ses-preop_run-2", "sub-01"),
        ("Patient-003_week-000-1", "Patient-003"),
        ("Patient-003/week-010", "Patient-003"),
        ("PatientID_0003_Timepoint_1", "PatientID_0003"),
        ("P01_t0", "P01"),
        ("P01_tp2", "P01"),
        ("P01-baseline", "P01"),
        ("P01_followup1", "P01"),
        ("P01_fu1", "P01"),
        ("P01_month12", "P01"),
        ("P01_m06", "P01"),
        ("P01_scan2", "P01"),
        ("P01_2020-01-31", "P01"),
        ("P01_20200131", "P01"),
        ("TCGA-02-0003/06-08-1997-NA-MRI BRAIN-12345", "TCGA-02-0003"),
        ("baseline/P01", "P01"),
        ("BraTS-MET-00001-002", "BraTS-MET-00001"),
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001"),
        ("100101B", "100101"),
        *(
            (f"P01_{visit}", "P01")
            for visit in ("0m", "6mo", "24m", "12months", "3M", "2y", "1.5y", "3wk", "24h")
        ),
        *(
            (f"P01_{visit}", "P01")
            for visit in ("6mFU", "fu6m", "6_months", "2years", "visitIV", "scan_B", "2nd-scan")
        ),
        *(
            (f"P01_{visit}", "P01")
            for visit in ("04032019", "04_03_2019", "Mar2019", "4-March-2019", "2019-03")
        ),
        *(
            (f"P01_{visit}", "P01")
            for visit in ("rescan", "retest", "test", "scan", "cycle2", "C1D1", "C1_D15")
        ),
        *((f"P01_{visit}", "P01") for visit in ("TP1_reg", "V1_MNI_brain", "0m_reg", "firstvisit")),
        ("P01-visit2-2020", "P01"),
        ("P01visit2", "P01"),
        ("P01pre", "P01"),
        ("case001_visitII", "case001"),
        ("P01/0m", "P01"),
        ("12m/P01", "P01"),
        *(
            (id, id)
            for id in (
                "P01_1",
                "P01_A",
                "P01_II",
                "P01_reg",
                "P01B",
                "P01_c1",
                "P_3M",
                "P_04032019",
                "case_II",
            )
        ),
        *(
            (id, id)
            for id in (
                "HC_45M",
                "HC_24yrs",
                "site01_45M",
                "siteA_3M",
                "site01_2001",
                "1001_2003",
                "sub-3mo",
            )
        ),
        ("Mets_001", "Mets_001"),
        ("sub-20200131", "sub-20200131"),
        ("20200131", "20200131"),
        ("Müller_Jörg", "Müller_Jörg"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("patient_scan_001", "patient_scan_001"),
        ("HGG/Brats18_2013_10_1", "HGG/Brats18_2013_10_1"),
    ],
)
def test_the_usual_names_of_visits_are_no_persons(id, expected):
    """Point 11."""
    assert person(id) == expected


@pytest.mark.parametrize(
    "visits", [("a", "b"), ("2020-01-01", "2021-03-04"), ("week-000", "week-010")]
)
@pytest.mark.parametrize("between", ["/", "_"])
def test_all_visits_of_a_person_are_in_one_split(tmp_path, visits, between):
    """Point 11. Any names of folders will do, where all persons have the same; beside the id they must be known."""
    if between == "_" and visits == ("a", "b"):
        visits = ("ses-a", "ses-b")
    patients(tmp_path, ids=tuple(f"P{k}{between}{visit}" for k in range(5) for visit in visits))
    of: dict[str, set[str]] = {}
    for id, split in splits(look(tmp_path, val_fraction=0.4)).items():
        of.setdefault(id[:2], set()).add(split)
    assert len(of) == 5
    assert all(len(each) == 1 for each in of.values())
    assert {"train", "val"} == set().union(*of.values())


def test_ids_that_only_look_like_visits_of_one_person_are_persons(tmp_path):
    """Point 11."""
    patients(tmp_path, ids=tuple(f"Mets_2020010{k}" for k in range(1, 6)))
    assert set(splits(look(tmp_path)).values()) == {"train", "val"}


def test_a_regex_finds_the_person_for_the_split_and_for_the_check_of_splits(tmp_path):
    """Point 11."""
    patients(tmp_path / "auto", ids=tuple(f"x{visit}-{k:02d}" for k in range(6) for visit in "qrs"))
    found = splits(look(tmp_path / "auto", person=r"-(\d+)$", val_fraction=0.5))
    assert len({(id[-2:], split) for id, split in found.items()}) == 6
    patients(tmp_path / "hand" / "train", ids=("xq-01", "xq-02"))
    patients(tmp_path / "hand" / "val", ids=("xr-01",))
    find(DataSettings(root=tmp_path / "hand"), CHANNELS)
    line = refusal(tmp_path / "hand", person=r"-(\d+)$")
    assert "01 is in train (xq-01) and val (xr-01)" in line
    find(
        DataSettings(root=tmp_path / "hand", person=r"-(\d+)$", allow_patient_overlap=True),
        CHANNELS,
    )


def test_visits_of_a_person_in_two_splits_are_refused(tmp_path):
    """Point 11."""
    patients(tmp_path / "train", ids=("sub-00_ses-1", "sub-01_ses-1"))
    patients(tmp_path / "val", ids=("sub-00_ses-2",))
    line = refusal(tmp_path)
    assert "sub-00 is in train (sub-00_ses-1) and val (sub-00_ses-2)" in line
    assert "data.person" in line


def test_ids_in_which_the_regex_finds_nothing_are_told_of(tmp_path):
    """Point 11."""
    patients(tmp_path)
    (line,) = left_out(tmp_path, person=r"sub-(\d+)")
    assert line.startswith("has 4 ids in which data.person finds nothing, such as P00")


# Layouts of two levels (point 12)


@pytest.mark.parametrize(
    "names",
    [
        [
            f"{grade}/B_{grade}{k}/B_{grade}{k}_{name}.nii.gz"
            for grade in ("HGG", "LGG")
            for k in (1, 2)
            for name in ("t1ce", "seg")
        ],
        [
            f"site{k}/P{k}{n}/{name}.nii.gz"
            for k in (1, 2)
            for n in (1, 2)
            for name in ("bravo", "seg")
        ],
        [f"data/brainmets/P{k}/{name}.nii.gz" for k in range(4) for name in ("bravo", "seg")],
        [f"P{k}/scan/{name}.nii.gz" for k in range(4) for name in ("bravo", "seg")],
        [f"t1c/P{k}.nii.gz" for k in range(4)] + [f"seg/P{k}.nii.gz" for k in range(4)],
        [f"images/P{k}_t1c.nii.gz" for k in range(4)]
        + [f"masks/P{k}_mask.nii.gz" for k in range(4)],
        [f"images/P{k}/t1c.nii.gz" for k in range(4)]
        + [f"Labels/P{k}/any.nii.gz" for k in range(4)],
        [f"ds/images/P{k}_t1c.nii.gz" for k in range(4)]
        + [f"ds/masks/P{k}.nii.gz" for k in range(4)],
        [f"P{k}_{name}.nii.gz" for k in range(4) for name in ("t1c", "seg")],
        [f"P{k}/{name}/P{k}_{name}.nii.gz" for k in range(4) for name in ("T1c", "SEG")],
    ],
    ids=[
        "grades",
        "sites",
        "high",
        "inner",
        "modalities",
        "suffixes",
        "folders",
        "high-masks",
        "flat",
        "within",
    ],
)
def test_two_levels_are_understood(tmp_path, names):
    """Point 12."""
    found = look(write(tmp_path, *names))
    assert not found.faults + found.left_out + found.unread
    assert len(found.patients) == 4
    assert all(set(patient.files) == set(CHANNELS) for patient in found.patients)


def test_splits_below_sites_and_within_folders_of_masks_are_understood(tmp_path):
    """Point 12."""
    sites = patients(
        tmp_path / "a", "A/train/a", "A/val/b", "B/train/c", "B/val/d", ids=("P0", "P1")
    )
    assert sorted(splits(look(sites)).values()) == ["train"] * 4 + ["val"] * 4
    names = [
        f"{kind}/{split}/{split}{k}.nii.gz"
        for kind in ("images", "labels")
        for split in ("train", "val")
        for k in "01"
    ]
    found = splits(look(write(tmp_path / "b", *names), files={"bravo": "images/*"}))
    assert found == {"train0": "train", "train1": "train", "val0": "val", "val1": "val"}


@pytest.mark.parametrize("above", ["", "data/", "siteA/"])
@pytest.mark.parametrize("train", [("c0",), ("c0", "c1", "c2")])
def test_folders_of_images_and_masks_below_splits_are_no_patients(tmp_path, above, train):
    """Point 12. One patient of a split is enough, and a test set needs no masks."""
    for split, ids in (("train", train), ("val", ("c7",))):
        write(
            tmp_path,
            *(f"{above}{split}/{kind}/{id}.nii.gz" for kind in ("images", "masks") for id in ids),
        )
    write(tmp_path, f"{above}test/images/c9.nii.gz")
    assert 'Set data.files.bravo to a pattern, such as "images/*.nii.gz"' in refusal(tmp_path)
    found = look(tmp_path, files={"bravo": "images/*.nii.gz"})
    assert not found.faults + found.left_out + found.unread
    expected = dict.fromkeys(train, "train") | {"c7": "val", "c9": "test"}
    assert splits(found) == {above + id: split for id, split in expected.items()}


@pytest.mark.parametrize(
    ("scans", "masks", "files"),
    [
        ("{}_images", "{}_masks", {"bravo": "images/*"}),
        ("images_{}", "labels_{}", {"bravo": "images/*"}),
        ("{}Images", "{}Segmentations", {"bravo": "Images/*"}),
        ("imgs-{}", "gt-{}", {"bravo": "imgs/*"}),
        ("ISLES_{}_scans", "ISLES_{}_lesions", {"bravo": "scans/*"}),
        ("{}_set_t1c", "{}_set_seg", {}),
        ("t1c_{}", "seg_{}", {}),
    ],
)
@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "Validation", "Testing"), ("Tr", "Va", "Ts")]
)
def test_folders_named_after_a_split_and_a_kind_are_paired(tmp_path, scans, masks, files, words):
    """Point 12: `train_images`, `train_masks`; a test set needs no masks."""
    train, val, test = words
    write(
        tmp_path,
        *(
            f"{each.format(train)}/{id}.nii.gz"
            for each in (scans, masks)
            for id in ("c0", "c1", "c2")
        ),
    )
    drawn = splits(look(tmp_path, files=files))
    assert sorted(drawn) == ["c0", "c1", "c2"]
    assert sorted(drawn.values()) == ["train", "train", "val"]
    write(
        tmp_path,
        *(f"{each.format(val)}/c3.nii.gz" for each in (scans, masks)),
        f"{scans.format(test)}/c4.nii.gz",
    )
    found = look(tmp_path, files=files)
    assert not found.faults + found.left_out + found.unread
    assert splits(found) == {"c0": "train", "c1": "train", "c2": "train", "c3": "val", "c4": "test"}


def test_folders_of_a_split_and_of_its_masks_are_paired_and_others_told_of(tmp_path):
    """Point 12: `train` beside `train_masks`."""
    write(
        tmp_path,
        *(f"{folder}/{id}.nii.gz" for folder in ("train", "train_masks") for id in ("c0", "c1")),
    )
    assert 'Set data.files.bravo to a pattern, such as "images/*.nii.gz"' in refusal(tmp_path)
    write(tmp_path, "P9/bravo.nii.gz")
    found = look(tmp_path, files={"bravo": "images/*"})
    assert sorted(splits(found)) == ["c0", "c1"]
    (line,) = found.left_out
    assert line.what.endswith("P9 (bravo.nii.gz)")


def test_scans_of_splits_that_have_their_own_masks_are_patients(tmp_path):
    """Point 12: `training_scans` and `validation_scans` are splits."""
    assert splits(look(patients(tmp_path, "training_scans/", "validation_scans/a"))) == {
        "P00": "train", "P01": "train", "P02": "train", "P03": "train",
        "aP00": "val", "aP01": "val", "aP02": "val", "aP03": "val",
    }  # fmt: skip


def test_a_patient_in_the_images_of_two_splits_is_refused(tmp_path):
    """Point 12."""
    for split in ("train", "val"):
        write(tmp_path, *(f"data/{split}/{kind}/{split}.nii.gz" for kind in ("t1c", "seg")))
        write(tmp_path, *(f"data/{split}/{kind}/c0.nii.gz" for kind in ("t1c", "seg")))
    assert "data/c0 is in train and val" in refusal(tmp_path)


def test_the_pattern_to_set_fits_all_splits(tmp_path):
    """Point 12."""
    names = [
        f"{kind}/{split}/{split}{k}.nii.gz"
        for kind in ("images", "labels")
        for split in ("train", "val")
        for k in "01"
    ]
    write(tmp_path, *names)
    assert 'Set data.files.bravo to a pattern, such as "images/*/*.nii.gz"' in refusal(tmp_path)
    assert (
        len(find(DataSettings(root=tmp_path, files={"bravo": "images/*/*.nii.gz"}), CHANNELS)) == 4
    )


def test_files_that_the_recipe_names_for_other_modes_are_not_told_to_be_named(tmp_path):
    """Point 12."""
    write(
        tmp_path,
        *(f"P{k}/{name}_{k}.nii.gz" for k in range(3) for name in ("T1c", "Flair", "OT", "X")),
    )
    files = {"bravo": "T1c_*.nii.gz", "flair": "Flair_*.nii.gz", "seg": "OT_*.nii.gz"}
    assert [fault.where.name for fault in look(tmp_path, "bravo", files=files).unread] == [
        f"X_{k}.nii.gz" for k in range(3)
    ]


def test_scans_without_a_modality_get_the_pattern_to_set(tmp_path):
    """Point 12."""
    write(tmp_path, *(f"{kind}/{id}.nii.gz" for kind in ("images", "masks") for id in PATIENTS))
    assert 'Set data.files.bravo to a pattern, such as "images/*.nii.gz"' in refusal(tmp_path)
    assert len(find(DataSettings(root=tmp_path, files={"bravo": "images/*.nii.gz"}), CHANNELS)) == 4


@pytest.mark.parametrize(
    ("names", "root", "told"),
    [
        (("P0/bravo.nii.gz", "P0/seg.nii.gz"), "P0", "is the folder of one patient"),
        (("B_1/B_1-t1c.nii.gz", "B_1/B_1-seg.nii.gz"), "B_1", "is the folder of one patient"),
        (("sub-1/anat/sub-1_T1w.nii.gz",), "sub-1", "is a part of the dataset"),
        (("sub-1/anat/sub-1_T1w.nii.gz",), "sub-1/anat", "is a part of the dataset"),
        (("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"), "imagesTr", "is a part of the dataset"),
        (("images/a.nii.gz", "images/b.nii.gz", "masks/a.nii.gz"), "images", "side by side"),
    ],
)
def test_a_level_too_low_names_the_folder_to_give(tmp_path, names, root, told):
    """Point 12."""
    write(tmp_path, *names)
    line = refusal(tmp_path / root)
    assert told in line
    assert str(tmp_path) in line.split(". Set data.root to ")[1]


@pytest.mark.parametrize("inner", ["imagesTr/a_0000.nii.gz", "sub-1/anat/sub-1_T1w.nii.gz"])
def test_a_level_too_high_names_the_folder_to_give(tmp_path, inner):
    """Point 12."""
    line = refusal(write(tmp_path, f"raw/Dataset137_BraTS/{inner}"))
    assert line.endswith(f"Set data.root to it, {tmp_path}/raw/Dataset137_BraTS.")


def test_nnunet_without_names_of_channels_gets_the_pattern_to_set(tmp_path):
    """Point 12."""
    write(
        tmp_path,
        *(f"imagesTr/C{k}_000{c}.nii" for k in range(3) for c in (0, 1)),
        *(f"labelsTr/C{k}.nii" for k in range(3)),
    )
    without = refusal(tmp_path)
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "MRI", "1": "MRI2"}}')
    for line in (without, refusal(tmp_path)):
        assert 'Set data.files.bravo to its channel, such as "imagesTr/*_0000.nii".' in line
    assert (
        len(find(DataSettings(root=tmp_path, files={"bravo": "imagesTr/*_0000.nii"}), CHANNELS))
        == 3
    )


def test_channels_in_a_fourth_dimension_are_one_line(tmp_path):
    """Point 12."""
    for case in ("BRATS_001", "BRATS_002"):
        write_volume(tmp_path / f"imagesTr/{case}.nii.gz", np.zeros((2, 2, 2, 4), np.float32))
        write_volume(tmp_path / f"labelsTr/{case}.nii.gz", NOTHING)
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "FLAIR", "1": "t1gd"}}')
    assert "holds 2 scans whose channels are their fourth dimension" in refusal(tmp_path)


def test_a_split_whose_patients_all_lack_a_file_is_one_line(tmp_path):
    """Point 12."""
    patients(tmp_path / "TrainingData")
    write(tmp_path, *(f"ValidationData/Q{k}/bravo.nii.gz" for k in range(3)))
    assert refusal(tmp_path).endswith(f"Add them, or set data.root to {tmp_path}/TrainingData.")


# Names that are not UTF-8 (point 16), files that are not here (point 18), tissue classes (point 19)


def test_names_that_are_not_utf8_are_found_sorted_hashed_and_left_out(tmp_path):
    """Point 16."""
    patients(tmp_path)
    os.rename(os.fsencode(tmp_path / "P00"), os.fsencode(tmp_path) + b"/M\xfcller")
    found = look(tmp_path, val_fraction=0.5)
    assert len(found.patients) == 4
    assert not found.faults
    assert "M\udcfcller" in splits(found)
    assert len(look(tmp_path, exclude=[Path("M\\udcfcller")]).patients) == 3


def test_a_name_is_hashed_alike_whatever_the_locale_makes_of_it(tmp_path):
    """Point 16. Under LC_ALL=C Python shows the bytes of UTF-8 one by one; the split must not depend on that."""
    assert raw("Müller") == raw("M\udcc3\udcbcller") == "Müller".encode()


NFC, NFD = "M\u00fcller", "Mu\u0308ller"


@pytest.mark.parametrize(
    ("scan", "mask"),
    [
        ("t1c/{}.nii.gz", "seg/{}.nii.gz"),
        ("t1c/{}/a.nii.gz", "seg/{}/b.nii.gz"),
        ("images/{}_t1c.nii.gz", "masks/{}_seg.nii.gz"),
        ("train_t1c/{}.nii.gz", "train_seg/{}.nii.gz"),
        ("{}_t1c.nii.gz", "{}_seg.nii.gz"),
        ("site/{}_t1c.nii.gz", "site/{}_seg.nii.gz"),
        (
            "sub-{}/anat/sub-{0}_ce-x_T1w.nii.gz",
            "derivatives/l/sub-{}/anat/sub-{0}_label-lesion_mask.nii.gz",
        ),
    ],
)
def test_both_forms_of_an_accent_are_one_patient(tmp_path, scan, mask):
    """Point 16. macOS writes a letter and its accent, others one character."""
    scan, mask = (each.replace("{0}", "{}") for each in (scan, mask))

    def named(pattern: str, name: str) -> str:
        return pattern.replace("{}", name)

    write(tmp_path, named(scan, NFC), named(mask, NFD), named(scan, "P1"), named(mask, "P1"))
    found = look(tmp_path)
    assert not found.faults + found.left_out + found.unread
    assert len(found.patients) == 2
    assert all(set(patient.files) == set(CHANNELS) for patient in found.patients)


def test_order_and_split_are_the_same_in_both_forms_and_every_locale(tmp_path, monkeypatch):
    """Point 16."""
    names = ("Mz", "M{}ller", "N{}", "Z", "a")
    seen = []
    for form in ("\u00fc", "u\u0308"):
        root = patients(tmp_path / str(len(form)), ids=tuple(each.format(form) for each in names))
        seen.append(look(root, exclude=[Path("N\u00fc")]).patients)
    order = [[(raw(each.id), each.split) for each in found] for found in seen]
    assert order[0] == order[1]
    assert [id for id, _ in order[0]] == [b"Mz", "M\u00fcller".encode(), b"Z", b"a"]
    monkeypatch.setattr(os, "fsencode", lambda name: os.fspath(name).encode("latin-1"))
    assert key("M\u00fcller".encode().decode("latin-1")) == "M\u00fcller".encode()


def test_a_pattern_fits_names_in_both_forms(tmp_path):
    """Point 16."""
    write(tmp_path, *(f"P{k}/{name}_t1.nii.gz" for k, name in enumerate((NFC, NFD))))
    for pattern in (f"{NFC}*", f"{NFD}*"):
        assert not look(tmp_path, "bravo", files={"bravo": pattern}).faults


def test_two_patients_that_differ_in_the_form_of_an_accent_are_refused(tmp_path):
    """Point 16. Their files are not taken for each other's."""
    assert "differ in nothing but case or accents" in refusal(
        patients(tmp_path / "a", ids=(NFC, NFD))
    )
    both = write(
        tmp_path / "b",
        *(
            f"{place}/{name}.nii.gz"
            for place in (f"train/{NFC}", f"val/{NFD}")
            for name in CHANNELS
        ),
    )
    assert "is in train and val" in refusal(both)


def annexed(path: Path, link: bool) -> None:
    path.unlink()
    if link:
        path.symlink_to("../.git/annex/objects/9f/V2/MD5E-s1--abc.nii.gz/MD5E-s1--abc.nii.gz")
    else:
        path.write_text("/annex/objects/MD5E-s1--abc.nii.gz\n")


@pytest.mark.parametrize("link", [True, False])
def test_files_of_git_annex_that_are_elsewhere_are_one_line(tmp_path, link):
    """Point 18."""
    patients(tmp_path)
    for id in PATIENTS:
        annexed(tmp_path / id / "bravo.nii.gz", link)
    line = refusal(tmp_path)
    assert "4 of its files are each a git-annex" in line
    assert "P00/bravo.nii.gz" in line
    assert line.endswith("Fetch it with `git annex get`.")


def bids(root: Path, *derivatives: str) -> Path:
    for k in range(3):
        write(
            root,
            f"sub-{k}/anat/sub-{k}_T1w.nii.gz",
            *(f"derivatives/{each.format(k)}" for each in derivatives),
        )
    return root


FMRIPREP = (
    "fmriprep/sub-{0}/anat/sub-{0}_dseg.nii.gz",
    "fmriprep/sub-{0}/anat/sub-{0}_desc-aparcaseg_dseg.nii.gz",
)
OWN_PIPELINE = (
    "mine/sub-{0}/anat/sub-{0}_dseg.nii.gz",
    "mine/sub-{0}/anat/sub-{0}_label-GM_probseg.nii.gz",
)


@pytest.mark.parametrize("tissue", [FMRIPREP, OWN_PIPELINE])
def test_tissue_classes_are_no_lesions_and_where_there_are_no_others_that_is_said(tmp_path, tissue):
    """Point 19."""
    root = bids(tmp_path / "only", *tissue)
    assert "sub-0_dseg.nii.gz is of tissue classes, not lesions" in refusal(root, "t1_pre", "seg")
    assert any("tissue classes" in fault.what for fault in look(root, "t1_pre").left_out)
    lesions = "experts/sub-{0}/anat/sub-{0}_space-T1w_desc-lesion_mask.nii.gz"
    found = look(bids(tmp_path / "both", *tissue, lesions), "t1_pre", "seg")
    assert not found.faults
    assert all(
        patient.files["seg"].name.endswith("desc-lesion_mask.nii.gz") for patient in found.patients
    )


def test_what_is_as_scanned_goes_before_what_was_made_of_it(tmp_path):
    """Point 19."""
    made = (
        "fmriprep/sub-{0}/anat/sub-{0}_desc-preproc_T1w.nii.gz",
        "fmriprep/sub-{0}/anat/sub-{0}_space-MNI_T1w.nii.gz",
    )
    found = look(bids(tmp_path, *made), "t1_pre")
    assert not found.faults
    assert {patient.files["t1_pre"].name for patient in found.patients} == {
        f"sub-{k}_T1w.nii.gz" for k in range(3)
    }


def test_several_runs_of_everyone_are_one_line_with_a_pattern(tmp_path):
    """Point 19."""
    write(
        tmp_path,
        *(f"sub-{k}/anat/sub-{k}_run-{run}_T1w.nii.gz" for k in range(4) for run in (1, 2)),
    )
    line = refusal(tmp_path, "t1_pre")
    assert "4 patients have several files for t1_pre" in line
    assert 'Set data.files.t1_pre to one of them, such as "*_run-1_T1w.nii.gz"' in line
    assert (
        len(find(DataSettings(root=tmp_path, files={"t1_pre": "*_run-1_T1w.nii.gz"}), ("t1_pre",)))
        == 4
    )


def test_a_mask_of_most_of_the_head_is_told_of_and_in_one_line_at_training(tmp_path, capsys):
    """Point 19. Classes of tissue from a pipeline of unknown name read as lesions otherwise."""
    head = np.zeros((16, 16, 8), np.float32)
    head[2:14, 2:14, 1:7] = np.random.default_rng(0).uniform(50, 100, (12, 12, 6))
    tissue = (head > 0).astype(np.uint8) + (head > 75)
    lesion = np.zeros_like(tissue)
    lesion[4:8, 4:8, 2:4] = 1
    for k, seg in enumerate((tissue, tissue > 0, lesion)):
        write_volume(tmp_path / f"P{k}/bravo.nii.gz", head ** (1 + k / 4))
        write_volume(tmp_path / f"P{k}/seg.nii.gz", seg.astype(np.uint8))
    settings = DataSettings(root=tmp_path, workers=1, val_fraction=0)
    for channels in (None, CHANNELS, ("seg",)):
        report = check(settings, channels, cache=tmp_path / "cache")
        told = {each.patient: each for each in report.warnings if "of the head" in each.what}
        assert [*told] == ["P0", "P1"]
        assert told["P0"].what == "has a mask seg that covers 100% of the head"
        assert (
            "choose of its labels 1, 2 with data.masks.seg.labels, or set data.files.seg"
            in told["P0"].fix
        )
        assert "labels" not in told["P1"].fix
    capsys.readouterr()
    open_store(settings, CHANNELS, frozenset({"seg"}), None, tmp_path / "cache")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "of the head" in line]
    assert "masks of 2 of 3 patients cover more than 50% of the head, up to 100%, such as " in line
    assert line.endswith(
        "P0/seg.nii.gz. If they are not of lesions, choose labels with data.masks, or other files with data.files."
    )
