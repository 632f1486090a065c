"""Tissue is estimated from scans of any contrast, without lesions, on their own grid.

Covers: medgen_builtins.commands.tissue, medgen_builtins.commands._tissue.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from medgen_builtins.commands._tissue import healed
from medgen_builtins.commands.demo.cohort import make_demo
from medgen_builtins.commands.demo.tissue import LEVELS
from scipy import ndimage

SEQUENCES = ("bravo", "flair")


def volume(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, np.float32)


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Path:
    """Two heads that no weights have seen, with their tissues, at 3 mm."""
    out = tmp_path_factory.mktemp("heads") / "heads"
    make_demo(out, 2, seed=77, workers=1, spacing=3.0, tissue=True)
    return out


@pytest.fixture(scope="module")
def scans(heads, tmp_path_factory) -> Path:
    """The same without their tissues."""
    out = tmp_path_factory.mktemp("scans")
    for patient in heads.iterdir():
        (out / patient.name).mkdir()
        for name in (*SEQUENCES, "seg"):
            (out / patient.name / f"{name}.nii.gz").symlink_to(patient / f"{name}.nii.gz")
    return out


def test_made_up_heads_show_their_tissues(heads):
    tissue = volume(heads / "Mets_001" / "tissue.nii.gz")
    bravo = volume(heads / "Mets_001" / "bravo.nii.gz")
    assert tissue.min() == 0
    assert tissue.max() == LEVELS[-1]
    assert tissue[bravo > 0].min() >= LEVELS[0]
    assert (tissue > 0).mean() == pytest.approx((bravo > 0).mean(), rel=0.01)


@pytest.mark.parametrize("image", SEQUENCES)
def test_tissue_is_that_of_the_head_whatever_the_contrast(medgen, heads, scans, tmp_path, image):
    done = medgen("data", "tissue", scans, tmp_path / "out", "--image", image)
    assert not done.code, done
    for patient in sorted(heads.iterdir()):
        truth = volume(patient / "tissue.nii.gz")
        found = volume(tmp_path / "out" / patient.name / "tissue.nii.gz")
        lesion = volume(patient / "seg.nii.gz") > 0
        healthy = (truth > 0) & (ndimage.distance_transform_edt(~lesion) * 3.0 > 9.0)
        assert np.corrcoef(truth[healthy], found[healthy])[0, 1] > 0.8
        scan = nib.load(scans / patient.name / f"{image}.nii.gz")
        made = nib.load(tmp_path / "out" / patient.name / "tissue.nii.gz")
        assert made.shape == scan.shape
        assert np.allclose(made.affine, scan.affine)
    assert not medgen("data", "check", tmp_path / "out").code


def test_the_folder_is_a_dataset_of_links_and_is_gone_on_with(medgen, scans, tmp_path):
    out = tmp_path / "out"
    assert not medgen("data", "tissue", scans, out).code
    patient = out / "Mets_001"
    assert {each.name for each in patient.iterdir()} == {
        "bravo.nii.gz", "flair.nii.gz", "seg.nii.gz", "tissue.nii.gz"
    }  # fmt: skip
    assert (patient / "bravo.nii.gz").resolve() == (scans / "Mets_001" / "bravo.nii.gz").resolve()
    before = (patient / "tissue.nii.gz").read_bytes()
    for each in (out / "Mets_002").iterdir():
        each.unlink()
    (out / "Mets_002").rmdir()
    (out / ".Mets_002.partial").mkdir()  # killed as it was written
    assert not medgen("data", "tissue", scans, out).code
    assert (patient / "tissue.nii.gz").read_bytes() == before
    assert (out / "Mets_002" / "tissue.nii.gz").is_file()
    assert not (out / ".Mets_002.partial").exists()


def test_a_scan_of_another_orientation_has_the_same_tissue(medgen, scans, tmp_path):
    turned = tmp_path / "turned" / "Mets_001"
    turned.mkdir(parents=True)
    for name in ("bravo", "seg"):
        image = nib.load(scans / "Mets_001" / f"{name}.nii.gz")
        other = image.as_reoriented(nib.orientations.axcodes2ornt("PSR"))
        nib.save(other, turned / f"{name}.nii.gz")
    assert not medgen("data", "tissue", tmp_path / "turned", tmp_path / "a").code
    assert not medgen("data", "tissue", scans, tmp_path / "b").code
    one, other = (
        nib.as_closest_canonical(nib.load(tmp_path / name / "Mets_001" / "tissue.nii.gz"))
        for name in "ab"
    )
    assert np.allclose(one.affine, other.affine)
    assert np.abs(np.asarray(one.dataobj) - np.asarray(other.dataobj)).max() <= 1


def test_lesions_get_the_tissue_around_them():
    tissue = np.full((24, 24, 24), 0.2, np.float32)
    tissue[:2] = -1
    lesion = np.zeros(tissue.shape, bool)
    lesion[10:13, 10:13, 10:13] = True
    changed = np.where(ndimage.binary_dilation(lesion), 0.9, tissue)
    made = healed(changed, lesion, spacing=2.0)
    assert np.allclose(made, tissue, atol=0.01)
    assert (healed(changed, np.zeros_like(lesion), 2.0) == changed).all()


def test_what_cannot_be_used_is_said_in_a_line(medgen, scans, trained, tmp_path):
    done = medgen("data", "tissue", scans, scans / "out")
    assert done.code == 2
    assert "lies in the folder that it is made of" in done.err
    done = medgen("data", "tissue", scans, tmp_path / "out", "--image", "t2")
    assert done.code == 3
    done = medgen("data", "tissue", scans, tmp_path / "out", "--model", trained / "seg")
    assert done.code == 2
    assert "makes seg given nothing. Give a model that makes tissue" in done.err
    assert not (tmp_path / "out").exists()
