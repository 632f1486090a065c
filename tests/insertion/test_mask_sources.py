"""Masks from elsewhere than the donors: a folder, or a model; painted by a model of mode `insert`."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import TINY
from faults.variants import SMALL
from insertion.made_up import AFFINE, write_heads
from scipy import ndimage

from medgen import seeds
from medgen.api.tables import DataSettings
from medgen.data.grid import Grid
from medgen.generation.insertion import cases, lesions
from medgen.generation.insertion.frame import Frame
from medgen.generation.insertion.inserter import Inserter
from medgen.generation.insertion.mask_sources import FolderShapes, ModelShapes, rounded
from medgen.generation.masks import Masks


class Bright:
    """Paints white."""

    channels = ("flair",)
    grid, margin = None, 4.0

    def numbers(self, crops, seed):
        return {}

    def paint(self, crops, seeds, numbers):
        return [np.ones_like(crop.image) for crop in crops]


class Drawn:
    """Stands for a model of masks: a disc of 18 mm beside the middle, in a slice of 32 px at 5 mm."""

    grid = Grid.of_slices(32, 5.0, "axial")

    def again(self, index, attempt):
        x, y = np.indices((32, 32)) - 15.5
        disc = np.hypot(x - 5, y + 2) < 1.8
        return Masks(torch.from_numpy(np.where(disc, 1.0, -1.0))[None, None], [[""]])

    def identity(self):
        return {"seg_model": "0"}


class DrawnVolume(Drawn):
    """Stands for a model of volumes: a rod of 12 x 12 x 24 mm in a volume of 40 voxels at 4 mm."""

    grid = Grid.of_volumes((40,) * 3, 4.0)

    def again(self, index, attempt):
        mask = torch.full((1, 1, 40, 40, 40), -1.0)
        mask[0, 0, 24:27, 20:23, 19:25] = 1
        return Masks(mask, [[""]])


def inserter(donors: Path, hosts: Path, masks) -> Inserter:
    data = DataSettings(root=donors, workers=1, val_fraction=0.0)
    library = lesions.collect(cases.find(data, ["flair"], masked=True), data, lambda _: None)
    mine = attrs.evolve(data, root=hosts)
    return Inserter(
        cases.find(mine, ["flair"], masked=False), library, Bright(), mine, 0, {}, masks
    )


@pytest.fixture(scope="module")
def donors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("donors"), range(5))


def write_masks(folder: Path) -> Path:
    """Two mask files with a cube of 15 mm and a rod of 3 x 3 x 24 mm, far from where lesions of donors lie."""
    folder.mkdir(parents=True)
    for name, box in (("a", (5, 5, 4)), ("b", (1, 1, 6))):
        mask = np.zeros((30, 30, 20), np.uint8)
        mask[2 : 2 + box[0], 2 : 2 + box[1], 2 : 2 + box[2]] = 1
        nib.save(nib.Nifti1Image(mask, AFFINE), folder / f"{name}.nii.gz")
    return folder


def test_shapes_of_a_folder_go_where_real_lesions_of_their_size_lie(
    donors: Path, tmp_path: Path
) -> None:
    shapes = FolderShapes(write_masks(tmp_path / "masks"), DataSettings(), ["seg"])
    assert sorted(round(lesion.size) for lesion in shapes.lesions) == [6 * 36, 100 * 36]
    hosts = write_heads(tmp_path / "hosts", range(10, 12), masked=False)
    for index in range(4):
        made = inserter(donors, hosts, shapes).make(index)
        assert made.lesions
        assert made.lesions[0]["donor"] in ("a", "b")
        frame = Frame.of(made.case.head, made.case.spacing)
        where = frame.place(np.argwhere(made.new))
        assert (
            0.2 < np.abs(where[:, 0]).mean() < 0.6
        )  # the donors' lie 24 of 62 mm from the midplane
        np.testing.assert_allclose(made.images[0][made.new], 1)


def test_what_a_lesion_is_painted_by_is_noted_with_it(donors: Path, tmp_path: Path) -> None:
    class Numbered(Bright):
        def numbers(self, crops, seed):
            return {"contrast": seed % 7}

    hosts = write_heads(tmp_path / "hosts", range(10, 12), masked=False)
    make = inserter(donors, hosts, None)
    plain = make.make(0).lesions
    make.painter = Numbered()
    noted = make.make(0).lesions
    assert noted
    assert [each["numbers"]["contrast"] for each in noted] == [
        seeds.derive(make.seed, "insert/paint", 0, number) % 7 for number in range(len(noted))
    ]
    assert not any("numbers" in each for each in plain)


def test_a_drawn_lesion_lies_where_it_lay_in_its_slice_and_is_round(
    donors: Path, tmp_path: Path
) -> None:
    hosts = write_heads(tmp_path / "hosts", range(10, 12), masked=False)
    make = inserter(donors, hosts, ModelShapes(Drawn()))
    made = make.make(0)
    (lesion,) = made.lesions
    where = np.argwhere(made.new).mean(0) * made.case.spacing
    x = where[0] - (48 - 1) / 2 * 3
    assert abs(abs(x) - 25) < 10  # 5 px of 5 mm, on either side
    assert abs(where[1] - (56 - 1) / 2 * 3 + 10) < 14
    sides = [each.stop - each.start for each in ndimage.find_objects(made.new.astype(np.uint8))[0]]
    assert max(side * mm for side, mm in zip(sides, (3, 3, 4), strict=True)) <= 26
    assert sides[2] >= 3
    assert "donor_contrast" in lesion


def test_a_lesion_of_a_drawn_volume_keeps_its_shape_and_its_place_in_the_head(
    donors: Path, tmp_path: Path
) -> None:
    hosts, shapes = write_heads(tmp_path / "hosts", range(10, 12), masked=False), DrawnVolume()
    make = inserter(donors, hosts, ModelShapes(shapes))
    made = make.make(0)
    assert np.count_nonzero(made.new) * 36 == pytest.approx(12 * 12 * 24, rel=0.02)
    frame = Frame.of(made.case.head, made.case.spacing)
    (pool,) = ModelShapes(shapes).pools(0, [1000.0], frame, make.library)
    head = np.argwhere(made.case.head)
    middle = (head.min(0) + head.max(0)) / 2 * made.case.spacing
    for lesion in pool:
        assert lesion.mask.sum() == 3 * 3 * 6
        assert lesion.size == 12 * 12 * 24
        assert not lesion.crosses
        apart = frame.voxels(lesion.where[None])[0] * made.case.spacing - middle
        assert np.abs(apart - (22, 6, 8)).max() <= 4  # a voxel


def test_a_disc_becomes_a_ball() -> None:
    x, y = np.indices((21, 21)) - 10
    ball = rounded(np.hypot(x, y) <= 9)
    assert ball.sum() == pytest.approx(4 / 3 * np.pi * 9.0**3, rel=0.1)
    assert ball.any((0, 1)).sum() == pytest.approx(19, abs=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, donors: Path) -> Path:
    """The folder of a run of mode insert."""
    from medgen.cli.main import main

    folder = tmp_path_factory.mktemp("model")
    options = (
        f"data.root={donors}",
        *TINY,
        *SMALL,
        "training.steps=2",
        f"run.dir={folder / 'run'}",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as ended:
            main(["train", "insert_rflow", *options, 'mode.insert.images=["flair"]'])
    assert not ended.value.code
    return folder / "run"


def command(model: Path, hosts: Path, donors: Path, out: Path, *more: object) -> list[str]:
    words = ["insert", "--hosts", hosts, "--donors", donors, "--image-model", model, "--steps", 2]
    return [str(each) for each in (*words, "--num-images", 2, "--output-dir", out, *more)]


def test_a_trained_model_paints_lesions_of_donors_or_of_a_folder(
    medgen, model, donors, tmp_path
) -> None:
    hosts = write_heads(tmp_path / "hosts", range(10, 12), masked=False)
    masks = write_masks(tmp_path / "masks")
    for name, more in (("donors", ()), ("folder", ("--seg-model", masks))):
        result = medgen(
            *command(model, hosts, donors, tmp_path / name, *more, "data.val_fraction=0")
        )
        assert result.code == 0, result.err
        first, *lines = [
            json.loads(line)
            for line in (tmp_path / name / "manifest.jsonl").read_text().splitlines()
        ]
        assert len(first["image_model"]) == 64
        assert ("seg_folder" in first) == (name == "folder")
        assert [line["lesions"]["new"] for line in lines] == [1, 1]


def refused(result, code: int, *words: str) -> None:
    told = [
        line
        for line in result.err.splitlines()
        if line.startswith("medgen:") and "warning" not in line
    ]
    assert result.code == code, result.err
    assert len(told) == 1, result.err
    assert all(word in told[0] for word in words), told[0]


def test_a_lesion_larger_than_the_models_crops_is_left_out_and_told_of(
    medgen, model, donors, tmp_path
) -> None:
    hosts = write_heads(tmp_path / "hosts", range(10, 11), masked=False)
    masks = tmp_path / "masks"
    masks.mkdir()
    nib.save(
        nib.Nifti1Image(np.pad(np.ones((40, 3, 3), np.uint8), 2), AFFINE), masks / "long.nii.gz"
    )
    result = medgen(
        *command(
            model, hosts, donors, tmp_path / "out", "--seg-model", masks, "data.val_fraction=0"
        )
    )
    refused(result, 12, "2 are larger than the model's crops")


def test_hosts_without_the_models_images_are_refused(medgen, model, donors, tmp_path) -> None:
    hosts = write_heads(tmp_path / "hosts", range(10, 11), masked=False)
    (hosts / "P010/flair.nii.gz").rename(hosts / "P010/t2.nii.gz")
    refused(medgen(*command(model, hosts, donors, tmp_path / "out")), 3, "flair", "P010")


def test_paste_takes_no_masks_alone(medgen, donors, tmp_path) -> None:
    masks = write_masks(tmp_path / "masks")
    result = medgen(*command("paste", donors, donors, tmp_path / "out", "--seg-model", masks)[:7], "--num-images", 1,
                    "--output-dir", tmp_path / "out", "--seg-model", masks)  # fmt: skip
    refused(result, 2, "--seg-model", "paste copies")


def test_settings_of_other_tables_are_refused(medgen, model, donors, tmp_path) -> None:
    refused(
        medgen(*command(model, donors, donors, tmp_path / "out", "training.steps=3")), 2, "training"
    )
