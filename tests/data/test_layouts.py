"""The standard layouts: which files are a patient's, and on which side of the split the patient is.

Covers: medgen.data.scans.layouts.faults, medgen.data.scans.layouts.patterns, medgen.data.scans.layouts.sources,
medgen.data.scans.layouts.splits, medgen.data.scans.layouts.bids_nnunet.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data.cohort import write_cohort, write_volume

from medgen.api.tables import DataSettings, MaskSettings
from medgen.data.scans.layouts import find, mask_names, source
from medgen.errors import DataError

NOTHING = np.zeros((2, 2, 2), np.uint8)


def write(root: Path, *names: str) -> Path:
    for name in names:
        write_volume(root / name, NOTHING)
    return root


def problems(settings: DataSettings, *channels: str) -> list[str]:
    with pytest.raises(DataError) as caught:
        find(settings, channels)
    return caught.value.lines


def test_a_folder_per_patient_is_found_in_the_order_of_ids(tmp_path):
    write_cohort(tmp_path, patients=3)
    patients = find(DataSettings(root=tmp_path), ("bravo", "seg"))
    assert [patient.id for patient in patients] == ["Mets_000", "Mets_001", "Mets_002"]
    assert patients[1].files == {
        name: tmp_path / "Mets_001" / f"{name}.nii.gz" for name in ("bravo", "seg")
    }


def test_what_is_hidden_or_holds_no_scans_is_no_patient(tmp_path):
    write(tmp_path, "p1/flair.nii", "p1/._flair.nii", "p1/.old/x_flair.nii.gz", ".trash/flair.nii")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("no scan")
    assert [patient.id for patient in find(DataSettings(root=tmp_path), ("flair",))] == ["p1"]


def test_patterns_find_files_by_any_name(tmp_path):
    write(tmp_path, "p1/T1c_a.nii.gz", "p1/anat/FLAIR.nii.gz", "p1/labels.nii.gz")
    files = {"bravo": "T1c_*.nii.gz", "flair": "anat/*", "seg": "lab*"}
    found = find(DataSettings(root=tmp_path, files=files), ("bravo", "flair", "seg"))[0].files
    assert {name: path.name for name, path in found.items()} == {
        "bravo": "T1c_a.nii.gz",
        "flair": "FLAIR.nii.gz",
        "seg": "labels.nii.gz",
    }


def test_a_mask_is_read_from_the_file_that_it_names(tmp_path):
    write(tmp_path, "p1/bravo.nii.gz", "p1/OTMulti.nii.gz", "p1/manual.nii.gz")
    masks = {
        "core": MaskSettings(file="lesions", labels=[1]),
        "by_hand": MaskSettings(file="man*.nii.gz"),
    }
    settings = DataSettings(root=tmp_path, files={"lesions": "OT*"}, masks=masks)
    files = find(settings, ("bravo", "core", "by_hand"))[0].files
    assert files[source(settings, "core")].name == "OTMulti.nii.gz"
    assert files[source(settings, "by_hand")].name == "manual.nii.gz"


def test_seg_is_the_mask_unless_others_are_named():
    assert mask_names(DataSettings()) == {"seg"}
    assert mask_names(DataSettings(masks={"tumour": MaskSettings()})) == {"tumour"}


def test_every_problem_is_told_at_once_and_names_its_folder(tmp_path):
    write(
        tmp_path, "p1/bravo.nii", "p1/bravo.nii.gz", "p1/flair.nii", "p2/bravo.nii", "p3/flair.nii"
    )
    found = problems(DataSettings(root=tmp_path), "bravo", "flair")
    assert [line.split(":")[0] for line in found] == [
        str(tmp_path / name) for name in ("p1", "p3", "p2")
    ]
    assert "2 files for bravo (bravo.nii.gz): bravo.nii, bravo.nii.gz" in found[0]
    assert "no file for bravo (bravo.nii.gz), it has flair.nii" in found[1]


def test_a_modality_that_nobody_has_is_one_line_with_a_likely_pattern(tmp_path):
    write(tmp_path, *(f"{id}/{id}_FLAIR.nii.gz" for id in ("a1", "a2", "a3")))
    (line,) = problems(DataSettings(root=tmp_path, layout="folders"), "flair")
    assert 'Set data.files.flair to a pattern, such as "*_FLAIR.nii.gz".' in line


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "has no patients"),
        (("p1_flair.nii.gz",), "scans that lie side by side"),
        (("test_new/p1/flair.nii.gz",), "never trained on"),
        (("val/p1/flair.nii.gz",), "none in train"),
    ],
)
def test_a_folder_without_training_patients_says_why(tmp_path, names, told):
    (line,) = problems(DataSettings(root=write(tmp_path, *names)), "flair")
    assert line.startswith(f"{tmp_path}: ")
    assert told in line


def test_a_folder_that_does_not_exist_is_told(tmp_path):
    (line,) = problems(DataSettings(root=tmp_path / "gone"), "flair")
    assert (
        line == f"{tmp_path / 'gone'}: does not exist. Set data.root to the folder with the scans."
    )


def test_the_root_may_hold_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANS", str(write(tmp_path, "p1/flair.nii")))
    assert len(find(DataSettings(root=Path("$SCANS")), ("flair",))) == 1


# Splits


def test_folders_decide_the_split_and_test_patients_are_left_out(tmp_path):
    write(
        tmp_path,
        *(f"{split}/{split}_1/flair.nii" for split in ("train", "val", "test", "test_new")),
    )
    patients = find(DataSettings(root=tmp_path, val_fraction=0.0), ("flair",))
    assert {patient.id: patient.split for patient in patients} == {
        "train_1": "train",
        "val_1": "val",
    }


def split(root: Path, ids: list[str], fraction: float) -> set[str]:
    patients = find(
        DataSettings(root=write(root, *(f"{id}/flair.nii" for id in ids)), val_fraction=fraction),
        ("flair",),
    )
    return {patient.id for patient in patients if patient.split == "val"}


def test_without_a_val_folder_the_split_is_made_by_patient(tmp_path):
    ids = [f"train/p{number}" for number in range(4)]
    assert len(split(tmp_path, ids, 0.5)) == 2


def test_the_split_depends_on_the_ids_alone_and_a_new_patient_moves_at_most_one(tmp_path):
    ids = [f"p{number:02d}" for number in range(20)]
    before = split(tmp_path / "a", ids, 0.25)
    assert len(before) == 5
    assert split(tmp_path / "b", ids[::-1], 0.25) == before
    assert len(before - split(tmp_path / "a", [*ids, "p20"], 0.25)) <= 1


@pytest.mark.parametrize(
    ("count", "fraction", "expected"), [(4, 0.0, 0), (4, 0.01, 1), (1, 0.5, 0), (2, 0.9, 1)]
)
def test_validation_takes_one_patient_at_least_and_leaves_one(tmp_path, count, fraction, expected):
    assert len(split(tmp_path, [f"p{number}" for number in range(count)], fraction)) == expected


def test_time_points_of_a_patient_stay_in_one_split(tmp_path):
    ids = [f"BraTS-MET-{person:05d}-{time:03d}" for person in range(4) for time in range(3)]
    val = split(tmp_path, ids, 0.5)
    assert len(val) == 6
    assert len({id[:-4] for id in val}) == 2


def test_a_patient_in_two_splits_is_refused(tmp_path):
    write(tmp_path, *(f"{place}/p1/flair.nii" for place in ("train", "val")))
    (line,) = problems(DataSettings(root=tmp_path), "flair")
    assert line == f"{tmp_path}: p1 is in train and val. Keep a patient in one split."


# Other layouts


@pytest.mark.parametrize("names", [("t1n", "t1c", "t2f", "seg"), ("t1", "t1ce", "flair", "seg")])
@pytest.mark.parametrize("dash", ["-", "_"])
def test_both_spellings_of_brats_are_found(tmp_path, names, dash):
    write(tmp_path, *(f"BraTS_1/BraTS_1{dash}{name}.nii.gz" for name in names))
    channels = ("t1_pre", "t1_gd", "flair", "seg")
    files = find(DataSettings(root=tmp_path), channels)[0].files
    assert [files[channel].name for channel in channels] == [
        f"BraTS_1{dash}{name}.nii.gz" for name in names
    ]


def test_bids_is_found_with_masks_among_the_derivatives_and_sessions_in_one_split(tmp_path):
    for person in ("sub-1", "sub-2"):
        for session in ("ses-a", "ses-b"):
            at, stem = f"{person}/{session}/anat", f"{person}_{session}"
            write(
                tmp_path,
                f"{at}/{stem}_T1w.nii.gz",
                f"{at}/{stem}_ce-gadolinium_T1w.nii.gz",
                f"{at}/{stem}_FLAIR.nii.gz",
            )
            write(tmp_path, f"derivatives/expert/{at}/{stem}_dseg.nii.gz")
    patients = find(
        DataSettings(root=tmp_path, val_fraction=0.5), ("t1_pre", "t1_gd", "flair", "seg")
    )
    names = {name: path.name for name, path in patients[0].files.items()}
    assert names == {
        "t1_pre": "sub-1_ses-a_T1w.nii.gz",
        "t1_gd": "sub-1_ses-a_ce-gadolinium_T1w.nii.gz",
        "flair": "sub-1_ses-a_FLAIR.nii.gz",
        "seg": "sub-1_ses-a_dseg.nii.gz",
    }
    assert len({patient.split for patient in patients if patient.id.startswith("sub-1")}) == 1


def test_nnunet_is_found_with_the_channels_that_dataset_json_names(tmp_path):
    write(
        tmp_path,
        "imagesTr/met_1_0000.nii.gz",
        "imagesTr/met_1_0001.nii.gz",
        "labelsTr/met_1.nii.gz",
    )
    write(tmp_path, "imagesTs/met_2_0000.nii.gz", "imagesTs/met_2_0001.nii.gz")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "FLAIR", "1": "T1Gd"}})
    )
    (patient,) = find(DataSettings(root=tmp_path), ("t1_gd", "flair", "seg"))
    assert {name: path.name for name, path in patient.files.items()} == {
        "t1_gd": "met_1_0001.nii.gz",
        "flair": "met_1_0000.nii.gz",
        "seg": "met_1.nii.gz",
    }
    (line,) = problems(DataSettings(root=tmp_path), "t1_pre")
    assert "has no channel t1_pre, it names FLAIR, T1Gd" in line
