"""Lesions of several masks: their parts move with them, models are given them, and outputs keep the labels.

Covers: medgen.generation.insertion.parts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from insertion.made_up import AFFINE, head
from scipy import ndimage

from medgen.api.tables import DataSettings, MaskSettings
from medgen.generation.insertion import cases, lesions, model_painter, shapes
from medgen.generation.insertion.mask_sources import FolderShapes
from medgen.generation.insertion.model_painter import marked
from medgen.generation.insertion.painter import Crop
from medgen.generation.insertion.parts import covering, sampled

Run = Callable[..., Any]
RIM, CORE, OTHER = 2, 1, 7
"""Labels in a file; the last lies in no part."""
WHOLE = 'data.masks.seg={file="seg",labels=[1,2,7]}'
PARTS = [WHOLE, 'data.masks.core={file="seg",labels=[1]}', 'data.masks.rim={file="seg",labels=[2]}']
MASKS = {
    "seg": MaskSettings(file="seg", labels=[1, 2, 7]),
    "core": MaskSettings(file="seg", labels=[1]),
    "rim": MaskSettings(file="seg", labels=[2]),
}


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads whose lesions have a rim around a core, and one voxel that is neither."""
    root = tmp_path_factory.mktemp("patients")
    for number in range(4):
        values, mask = head(number)
        labels = np.where(mask, RIM, 0)
        labels[ndimage.binary_erosion(mask)] = CORE
        labels[tuple(np.argwhere(labels == RIM)[0])] = OTHER
        folder = root / f"P{number:03d}"
        folder.mkdir()
        nib.save(nib.Nifti1Image(values.astype(np.int16), AFFINE), folder / "flair.nii.gz")
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), AFFINE), folder / "seg.nii.gz")
    return root


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def paste(patients: Path, out: Path, *more: str) -> list[str]:
    words = ["insert", "--hosts", patients, "--image-model", "paste", "--output-dir", out]
    given = [*words, "--num-images", 3, "data.workers=1", "data.val_fraction=0", *more]
    return [str(each) for each in given]


def test_a_moved_lesion_keeps_the_shares_of_its_parts(patients: Path) -> None:
    data = DataSettings(root=patients, masks=MASKS, val_fraction=0)
    (found, *_) = cases.find(data, ["flair"], masked=True, masks=["seg", "core", "rim"])
    (lesion,) = lesions.lesions_of(cases.read(found, data))
    share = lesion.parts.sum((1, 2, 3)) / lesion.mask.sum()
    for seed in range(4):
        moved = shapes.moved(lesion, (2.0, 2.0, 2.0), np.random.default_rng(seed), seed % 2 == 1)
        patch = moved.patch()
        assert patch.parts is not None
        whole, core, rim = patch.parts
        assert np.array_equal(whole, patch.mask)
        assert not (core & rim).any()
        assert core.sum() / whole.sum() == pytest.approx(share[1], abs=0.1)
        assert rim.sum() / whole.sum() == pytest.approx(share[2], abs=0.1)
        # the core is inside
        assert not (core & ~ndimage.binary_erosion(patch.mask)).any()


def test_each_voxel_has_the_parts_that_cover_most_of_it() -> None:
    parts = np.array([[1, 1, 1, 1, 0], [0, 1, 1, 0, 0]], bool)
    half = sampled(parts, np.array([1, 1, 1], bool), lambda share: share[[0, 2, 3]])
    assert half.tolist() == [[True] * 3, [False, True, False]]
    one = np.array([True, False])
    assert sampled(parts[:1], one, lambda share: pytest.fail("not asked")).tolist() == [
        [True, False]
    ]


def test_what_no_part_covers_has_those_of_the_nearest_voxel() -> None:
    parts = np.zeros((2, 7), bool)
    parts[0, 1], parts[1, 5] = True, True
    lesion = np.array([0, 1, 1, 0, 1, 1, 0], bool)
    assert covering(parts, lesion).astype(int).tolist() == [
        [0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0],
    ]


def test_outputs_keep_the_labels_of_the_host_and_give_new_lesions_those_of_donors(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    assert medgen(*paste(patients, tmp_path / "out", *PARTS)).code == 0
    found = sorted((tmp_path / "out/train").iterdir())
    assert len(found) == 3
    hosts = [labels_of(path) for path in sorted(patients.glob("*/seg.nii.gz"))]
    for folder in found:
        assert {path.name for path in folder.iterdir()} == {
            "flair.nii.gz", "seg.nii.gz", "seg_new.nii.gz",
        }  # fmt: skip
        every, new = labels_of(folder / "seg.nii.gz"), labels_of(folder / "seg_new.nii.gz")
        assert {CORE, RIM} <= set(np.unique(new).tolist()) <= {0, CORE, RIM, OTHER}
        before = np.where(new > 0, 0, every)
        assert any(np.array_equal(before, host) for host in hosts)
        assert np.array_equal(every[new > 0], new[new > 0])


def test_one_mask_of_several_labels_stays_a_mask(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    assert medgen(*paste(patients, tmp_path / "out", WHOLE)).code == 0
    for path in (tmp_path / "out").glob("train/*/seg.nii.gz"):
        assert set(np.unique(labels_of(path)).tolist()) == {0, 1}


def test_masks_of_several_files_keep_a_file_each(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    root = tmp_path / "apart"
    for folder in sorted(patients.iterdir()):
        (root / folder.name).mkdir(parents=True)
        (root / folder.name / "flair.nii.gz").symlink_to(folder / "flair.nii.gz")
        image = nib.load(folder / "seg.nii.gz")
        for name, label in (("core", CORE), ("rim", RIM)):
            mask = (np.asarray(image.dataobj) == label).astype(np.uint8)
            nib.save(nib.Nifti1Image(mask, image.affine), root / folder.name / f"{name}.nii.gz")
    masks = ['data.masks.core={file="core"}', 'data.masks.rim={file="rim"}']
    files = ['data.files={core="core*",rim="rim*"}']
    assert medgen(*paste(root, tmp_path / "out", *masks, *files)).code == 0
    for folder in (tmp_path / "out/train").iterdir():
        core, rim, every = (labels_of(folder / f"{name}.nii.gz") for name in ("core", "rim", "seg"))
        assert core.any()
        assert rim.any()
        assert not (core & rim).any()
        assert np.array_equal(core | rim, every)


def test_a_model_is_given_the_parts_of_a_crop_as_training_marks_them() -> None:
    mask, region = np.zeros((2, 6, 6), bool)
    mask[2:4, 2:4] = region[1:5, 1:5] = True
    parts = np.stack([mask, mask & (np.arange(6) < 3)])
    head = np.ones_like(mask)
    crop = Crop(np.zeros((1, 6, 6)), mask, region, (1.0, 1.0), head, parts=parts)
    given = marked(crop)
    assert given.shape == (1, 2, 6, 6)
    assert torch.equal(given[0, 0] == 1, torch.from_numpy(mask))
    assert torch.equal(given[0, 1] == 1, torch.from_numpy(parts[1]))
    assert ((given[0] == 0).any(0).numpy() <= region).all()
    assert (given[0][:, ~region] == -1).all()


def test_masks_of_a_folder_have_parts(patients: Path) -> None:
    data = DataSettings(masks=MASKS)
    shapes_ = FolderShapes(patients, data, ["seg", "core", "rim"])
    assert len(shapes_.lesions) == 4
    for lesion in shapes_.lesions:
        whole, core, rim = lesion.parts
        assert np.array_equal(whole, lesion.mask)
        assert core.any()
        assert rim.any()
        assert not (core & rim).any()


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ('["seg"]', 'got ["seg"], expected other masks than seg, each once'),
        ('["flair"]', 'got ["flair"], expected other masks'),
        ('["core","core"]', 'got ["core", "core"], expected other masks'),
    ],
)
def test_parts_that_are_none_are_refused(
    medgen: Run, patients: Path, parts: str, problem: str
) -> None:
    result = medgen(
        "train", "demo_insert", "--dry-run", f"data.root={patients}", 'mode.insert.images=["flair"]',
        *PARTS, f"mode.insert.parts={parts}",
    )  # fmt: skip
    assert result.code == 2
    assert problem in result.err


@pytest.mark.parametrize("recipe", ["demo_insert", "demo_insert_3d"])
def test_a_model_is_given_parts_and_outputs_have_their_labels(
    medgen: Run, patients: Path, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    trained = medgen(
        "train", recipe, f"data.root={patients}", *PARTS, 'mode.insert.images=["flair"]',
        'mode.insert.parts=["core","rim"]', "data.val_fraction=0", "training.steps=2",
        "training.batch_size=2", "data.image_size=16", "data.spacing=3", "callbacks.previews=false",
        "training.precision=fp32", "network.unet.channels=[8,8]", "network.unet.norm_groups=4",
        "network.unet.attention=[false,false]", "training.init_from=", f"run.dir={run}",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    given: list[torch.Tensor] = []

    def seen(crop: Crop) -> torch.Tensor:
        given.append(marked(crop))
        return given[-1]

    monkeypatch.setattr(model_painter, "marked", seen)
    words = ["insert", "--hosts", patients, "--image-model", run, "--output-dir", tmp_path / "out"]
    more = ["--num-images", 1, "--steps", 1, "data.workers=1", "data.val_fraction=0"]
    assert medgen(*map(str, [*words, *more])).code == 0
    assert {each.shape[1] for each in given} == {3}
    whole, core, rim = (torch.cat([each[0, part].flatten() for each in given]) for part in range(3))
    assert (core == 1).any()
    assert (rim == 1).any()
    assert not ((core == 1) & (rim == 1)).any()
    assert (whole[core == 1] == 1).all()
    (made,) = (tmp_path / "out/train").iterdir()
    labels = set(np.unique(labels_of(made / "seg_new.nii.gz")).tolist())
    assert {CORE, RIM} <= labels <= {0, CORE, RIM, OTHER}


def test_gliomas_of_brats_are_trained_on_and_inserted(
    medgen: Run, patients: Path, tmp_path: Path
) -> None:
    """Names and labels as of 2023; the recipe as it stands, but for its size."""
    root = tmp_path / "brats"
    for number, folder in enumerate(sorted(patients.iterdir())):
        name = f"BraTS-GLI-{number:05d}-000"
        (root / name).mkdir(parents=True)
        for image in ("t1c", "t2f"):
            (root / name / f"{name}-{image}.nii.gz").symlink_to(folder / "flair.nii.gz")
        labels = nib.load(folder / "seg.nii.gz")
        of_2023 = np.array([0, 1, 3, 0, 0, 0, 0, 2], np.uint8)[labels_of(folder / "seg.nii.gz")]
        nib.save(nib.Nifti1Image(of_2023, labels.affine), root / name / f"{name}-seg.nii.gz")
    run = tmp_path / "run"
    trained = medgen(
        "train", "insert_brats", f"data.root={root}", f"run.dir={run}", "training.steps=1",
        "training.epochs=0", "training.batch_size=2", "data.image_size=16", "data.spacing=3",
        "callbacks.previews=false", "network.unet.channels=[8,8]", "network.unet.norm_groups=4",
        "network.unet.attention=[false,false]", "training.precision=fp32", "training.compile=false",
        "data.val_fraction=0",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    words = ["insert", "--hosts", root, "--image-model", run, "--output-dir", tmp_path / "out"]
    more = ["--num-images", 1, "--steps", 1, "data.workers=1", "data.val_fraction=0"]
    made = medgen(*map(str, [*words, *more]))
    assert made.code == 0, made.err
    (folder,) = (tmp_path / "out/train").iterdir()
    assert {path.name.split(".")[0] for path in folder.iterdir()} == {
        "t1_gd", "flair", "seg", "seg_new",
    }  # fmt: skip
    assert {1, 3} <= set(np.unique(labels_of(folder / "seg_new.nii.gz")).tolist()) <= {0, 1, 2, 3}
