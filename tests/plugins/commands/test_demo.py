"""The demo cohort: the same bytes every time, and lesions that are where their masks are.

Covers: medgen_builtins.commands.demo.atlas, medgen_builtins.commands.demo.cohort,
medgen_builtins.commands.demo.command,
medgen_builtins.commands.demo.contrasts, medgen_builtins.commands.demo.disease,
medgen_builtins.commands.demo.patient, medgen_builtins.commands.demo.randomised,
medgen_builtins.commands.demo.tissue.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from medgen_builtins.commands.demo.atlas import Grid, load_atlas, sample, warp
from medgen_builtins.commands.demo.cohort import make_demo
from medgen_builtins.commands.demo.contrasts import CONTRASTS
from medgen_builtins.commands.demo.disease import grow
from medgen_builtins.commands.demo.patient import make_patient, render
from medgen_builtins.commands.demo.randomised import make_randomised
from medgen_builtins.commands.demo.tissue import make_tissue
from scipy import ndimage

from medgen.errors import RecipeError

needs_nilearn = pytest.mark.skipif(
    find_spec("nilearn") is None, reason="nilearn is not installed (the extra `demo`)"
)
COARSE = 6.0
NAMES = {"bravo", "t1_pre", "t1_gd", "flair", "seg"}


def contents(root: Path) -> dict[str, bytes]:
    """Every file below `root` by its path."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three coarse patients, made in this process."""
    out = tmp_path_factory.mktemp("demo") / "cohort"
    make_demo(out, 3, seed=5, workers=1, spacing=COARSE)
    return out


@pytest.fixture(scope="module")
def patients() -> list[dict[str, np.ndarray]]:
    """Four patients at the resolution of the demo's default, or nearly."""
    return [make_patient(1, index, Grid.of(2.5)) for index in range(1, 5)]


@needs_nilearn
def test_the_bytes_do_not_depend_on_when_or_by_how_many_processes_they_are_written(
    cohort: Path, tmp_path: Path
) -> None:
    """Two workers later write what one did, and each patient is reported once."""
    done: list[int] = []
    folders = make_demo(
        tmp_path / "b", 3, seed=5, workers=2, spacing=COARSE, advance=lambda: done.append(1)
    )
    assert contents(tmp_path / "b") == contents(cohort)
    assert [folder.name for folder in folders] == ["Mets_001", "Mets_002", "Mets_003"]
    assert len(done) == 3


@needs_nilearn
def test_a_smaller_cohort_is_the_beginning_of_a_larger_one(cohort: Path, tmp_path: Path) -> None:
    """Patient i depends on the seed and i alone."""
    make_demo(tmp_path / "one", 1, seed=5, workers=1, spacing=COARSE)
    first = contents(tmp_path / "one")
    assert {path: content for path, content in contents(cohort).items() if path in first} == first
    assert len(first) == len(NAMES)


@needs_nilearn
def test_another_seed_or_index_is_another_patient(cohort: Path, tmp_path: Path) -> None:
    """No two patients share a volume."""
    make_demo(tmp_path / "other", 1, seed=6, workers=1, spacing=COARSE)
    volumes = [*contents(cohort).values(), *contents(tmp_path / "other").values()]
    assert len(set(volumes)) == len(volumes) == 4 * len(NAMES)


@needs_nilearn
def test_files_are_int16_images_and_a_01_mask_in_ras_with_millimetres_and_no_trace_of_their_making(
    cohort: Path,
) -> None:
    """Every header is sane, and the gzip header carries neither a time nor a name."""
    for path in sorted((cohort / "Mets_002").iterdir()):
        image, raw = nib.load(path), path.read_bytes()
        assert raw[3] == 0
        assert raw[4:8] == bytes(4)
        assert image.get_data_dtype() == (np.uint8 if path.name == "seg.nii.gz" else np.int16)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.header.get_zooms() == (COARSE, COARSE, COARSE)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.header["descrip"].item() == b""
        assert len(gzip.decompress(raw)) == 352 + image.dataobj.dtype.itemsize * np.prod(
            image.shape
        )


@needs_nilearn
def test_every_patient_has_lesions_and_they_lie_within_the_brain(
    patients: list[dict[str, np.ndarray]],
) -> None:
    """The mask is 0/1, not empty, small beside the brain, and 0 wherever the images are background."""
    for patient in patients:
        mask, brain = patient["seg"] > 0, patient["t1_pre"] > 0
        assert set(patient) == {*NAMES, "tissue"}
        assert set(np.unique(patient["seg"])) == {0, 1}
        assert 0 < mask.sum() < 0.05 * brain.sum()
        assert (brain[mask]).mean() > 0.999
        assert 0.2 < brain.mean() < 0.6


@needs_nilearn
def test_a_coarse_lesion_keeps_its_voxel(cohort: Path) -> None:
    """Even where voxels are larger than lesions, no patient is without a mask."""
    assert all(np.asarray(nib.load(path).dataobj).sum() > 0 for path in cohort.glob("*/seg.nii.gz"))


@needs_nilearn
def test_lesions_are_brighter_than_what_surrounds_them_only_after_contrast(
    patients: list[dict[str, np.ndarray]],
) -> None:
    """Mean inside the mask over that in a ring around it: above on BRAVO and T1 post, where T1 pre is darkish."""
    for patient in patients:
        mask = patient["seg"] > 0
        ring = ndimage.binary_dilation(mask, iterations=2) & ~mask & (patient["bravo"] > 0)
        ratio = {
            name: patient[name][mask].mean() / patient[name][ring].mean()
            for name in NAMES - {"seg"}
        }
        assert min(ratio["bravo"], ratio["t1_gd"]) > 1.3
        assert ratio["t1_gd"] > 1.4 * ratio["t1_pre"]
        assert patient["t1_pre"][mask].mean() < 0.9 * np.percentile(
            patient["t1_pre"][patient["t1_pre"] > 0], 90
        )


@needs_nilearn
def test_tissues_have_the_contrast_of_their_sequence() -> None:
    """T1: CSF darker than grey, grey than white. FLAIR: CSF dark, grey brighter than white."""
    grid, rng = Grid.of(4.0), np.random.default_rng(0)
    tissue = make_tissue(rng, grid, sample(load_atlas(), warp(rng, grid)))
    healthy = grow(rng, grid, tissue, [])
    means = {}
    for name, contrast in CONTRASTS.items():
        image = render(rng, grid, contrast, tissue, healthy, np.zeros(grid.shape, np.float32))
        means[name] = [
            image[(part > 0.9) & tissue.brain].mean()
            for part in (tissue.csf, tissue.grey, tissue.white)
        ]
    assert all(
        csf < grey < white
        for csf, grey, white in (means[name] for name in ("bravo", "t1_pre", "t1_gd"))
    )
    assert means["flair"][0] < means["flair"][2] < means["flair"][1]


def test_without_nilearn_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is written."""
    monkeypatch.setattr("medgen_builtins.commands.demo.atlas.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install 'medgen\[demo\]'") as caught:
        make_demo(tmp_path / "out", 1)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("patients", "seed", "key"), [(0, 0, "patients"), (1, -1, "seed")])
def test_impossible_numbers_are_refused(tmp_path: Path, patients: int, seed: int, key: str) -> None:
    """The line names the key."""
    with pytest.raises(RecipeError, match=f"^{key}: "):
        make_demo(tmp_path / "out", patients, seed)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    """Neither patients nor anything else is mixed with a new cohort."""
    (tmp_path / "Mets_001").mkdir()
    with pytest.raises(RecipeError, match="not an empty folder"):
        make_demo(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["Mets_001"]


@needs_nilearn
def test_randomised_patients_have_contrasts_and_sizes_that_no_cohort_has() -> None:
    """The same patient twice is the same; grey and white matter change places from image to image."""
    patient, other = make_randomised(0, 1), make_randomised(0, 4)
    again = make_randomised(0, 4)
    assert all(np.array_equal(other[name], again[name]) for name in NAMES)
    assert patient["seg"].shape != other["seg"].shape
    assert other["seg"].any()
    inside = other["bravo"] > 0
    likeness = np.corrcoef([other[name][inside] for name in ("bravo", "t1_pre", "t1_gd", "flair")])
    usual = make_patient(0, 1, Grid.of(COARSE))
    head = usual["bravo"] > 0
    alike = np.corrcoef([usual[name][head] for name in ("bravo", "t1_pre", "t1_gd", "flair")])
    assert likeness.min() < alike.min()
