"""Lesions as volumes: a model of crops of volumes is trained, resumed, and paints into whole scans.

Covers: medgen.generation.insertion.insertions_picture, medgen.generation.insertion.painter.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import TINY
from data.test_volumes import COMBINATIONS, written
from faults.variants import SMALL
from insertion.made_up import SPACING, head, write_heads
from PIL import Image

from medgen.data.grid import Grid
from medgen.data.store.crop_targets import grown
from medgen.generation.insertion import insertions_picture
from medgen.generation.insertion.model_painter import marked, open_painter
from medgen.generation.insertion.painter import paints_volumes
from medgen.generation.insertion.painting import fits
from medgen.generation.insertion.paste import Paste

GIVEN = (*TINY, *SMALL, 'mode.insert.images=["flair"]', "training.steps=2", "data.val_fraction=0")


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("patients"), range(4))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, patients: Path) -> Path:
    """The folder of a run of crops of volumes, a few steps long."""
    from medgen.cli.main import main

    folder = tmp_path_factory.mktemp("run")
    words = ["train", "insert_3d", f"data.root={patients}", *GIVEN, f"run.dir={folder / 'run'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert not ended.value.code
    return folder / "run"


def command(patients: Path, run: Path, out: Path, *more: object) -> list[str]:
    words = ["insert", "--hosts", patients, "--image-model", run, "--output-dir", out]
    given = ("data.workers=1", "data.val_fraction=0", "--steps", 2, *more)
    return [str(each) for each in (*words, *given)]


def files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_all_but_the_region_of_new_lesions_is_the_host_bit_for_bit(medgen, patients, run, tmp_path):
    assert medgen(*command(patients, run, tmp_path / "out", "--num-images", 3)).code == 0
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines()[1:]
    for line in map(json.loads, lines):
        made = tmp_path / "out/train" / line["id"]
        flair, seg, new = (nib.load(made / f"{n}.nii.gz") for n in ("flair", "seg", "seg_new"))
        host, mask = (
            nib.load(patients / line["host"]["id"] / f"{name}.nii.gz") for name in ("flair", "seg")
        )
        shown = np.asarray(new.dataobj) > 0
        assert shown.any()
        assert ((np.asarray(seg.dataobj) > 0) == (shown | (np.asarray(mask.dataobj) > 0))).all()
        before, after = (np.asarray(each.dataobj) for each in (host, flair))
        region = grown(shown, SPACING, 4.0)
        assert before.dtype == after.dtype == np.int16
        assert before[~region].tobytes() == after[~region].tobytes()
        assert (before[shown] != after[shown]).any()
        assert (flair.affine == host.affine).all()


PLACES = {
    "folders": ("{id}/flair.nii.gz", "{id}/seg.nii.gz"),
    "modalities": ("flair/{id}.nii.gz", "seg/{id}.nii.gz"),
    "nnunet": ("imagesTr/{id}_0000.nii.gz", "labelsTr/{id}.nii.gz"),
}
"""By layout, where a patient's scan and mask are."""


@pytest.mark.parametrize("layout", PLACES)
def test_hosts_of_any_orientation_obliqueness_and_spacing_keep_their_voxels(
    layout, medgen, run, tmp_path
):
    """The twelve combinations of the geometry of volumes, four in each layout."""
    root, hosts = tmp_path / "hosts", [each[:3] for each in COMBINATIONS if each[3] == layout]
    for number, (orientation, turn, spacing) in enumerate(hosts):
        values, mask = head(number)
        for place, data in zip(PLACES[layout], (values.astype(np.int16), mask), strict=True):
            path = root / place.format(id=f"P{number:03d}")
            written(path, data.astype(np.int16), orientation, turn, spacing + 2)
    if layout == "nnunet":
        about = {"channel_names": {"0": "flair"}, "labels": {"background": 0, "seg": 1}}
        (root / "dataset.json").write_text(json.dumps(about))
    result = medgen(*command(root, run, tmp_path / "out", "--num-images", 4))
    assert result.code == 0, result.err
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines()[1:]
    assert {json.loads(line)["host"]["id"] for line in lines} == {f"P{n:03d}" for n in range(4)}
    for line in map(json.loads, lines):
        made = tmp_path / "out/train" / line["id"]
        flair, seg, new = (nib.load(made / f"{n}.nii.gz") for n in ("flair", "seg", "seg_new"))
        host, mask = (nib.load(root / each.format(id=line["host"]["id"])) for each in PLACES[layout])  # fmt: skip
        orientation, _, spacing = hosts[int(line["host"]["id"][1:])]
        for each in (flair, seg, new):
            assert nib.aff2axcodes(each.affine) == tuple(orientation)
            assert np.array_equal(each.affine, host.affine)
            assert each.header.get_zooms() == pytest.approx((spacing + 2,) * 3)
        shown = np.asarray(new.dataobj) > 0
        assert shown.any()
        assert np.array_equal(np.asarray(seg.dataobj) > 0, shown | (np.asarray(mask.dataobj) > 0))
        before, after = (np.asarray(each.dataobj) for each in (host, flair))
        region = grown(shown, (spacing + 2,) * 3, 4.0)
        assert before[~region].tobytes() == after[~region].tobytes()
        assert (before[shown] != after[shown]).any()


def test_an_output_is_the_same_whatever_else_is_made_and_after_a_stop(
    medgen, patients, run, tmp_path
):
    assert medgen(*command(patients, run, tmp_path / "all", "--num-images", 2)).code == 0
    whole = files(tmp_path / "all")
    (tmp_path / "all/train/syn_00000/flair.nii.gz").unlink()
    assert medgen(*command(patients, run, tmp_path / "all", "--num-images", 2)).code == 0
    assert files(tmp_path / "all") == whole
    assert medgen(*command(patients, run, tmp_path / "one", "--only", 1)).code == 0
    assert files(tmp_path / "one/train/syn_00001") == files(tmp_path / "all/train/syn_00001")


def test_three_planes_are_shown_of_what_was_painted_as_a_volume(
    medgen, patients, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(insertions_picture, "SHOWN", 3)
    assert medgen(*command(patients, run, tmp_path / "out", "--num-images", 2)).code == 0
    assert len(list((tmp_path / "out/pictures").iterdir())) == 1
    side = insertions_picture.SIDE
    picture = Image.open(tmp_path / "out/pictures/syn_00000.png")
    assert picture.size == (3 * side, 3 * side)
    tiles = np.array(picture).reshape(3, side, 3, side, 3).swapaxes(1, 2)
    planes = insertions_picture.strips(tmp_path / "out", 1)
    assert [each.shape for each in planes] == [(side, 3 * side, 3)] * 3
    for before, after, outlined in tiles:
        assert (before != after).any()
        assert (after != outlined).any()
    assert not paints_volumes(Paste(("flair",)))


def test_a_lesion_has_to_fit_into_a_crop_along_every_axis(run):
    painter = open_painter(run / "latest.pt", steps=1)
    assert painter.grid == Grid.of_volumes((16,) * 3, 3.0)
    for shape in ((9, 3, 3), (3, 9, 3), (3, 3, 9)):
        assert fits(painter, np.ones(shape, bool), (3.0, 3.0, 3.0))
    for shape in ((13, 3, 3), (3, 13, 3), (3, 3, 13)):
        assert not fits(painter, np.ones(shape, bool), (3.0, 3.0, 3.0))


def test_the_model_is_given_a_volume_marked_as_in_training(run, monkeypatch):
    from medgen.generation.insertion.painter import Crop

    painter, mask = open_painter(run / "latest.pt", steps=2), np.zeros((16,) * 3, bool)
    mask[7:10, 6:9, 7:9] = True
    region, head = grown(mask, (3.0,) * 3, 4.0), np.ones_like(mask)
    image = np.random.default_rng(0).random((1, 16, 16, 16), np.float32)
    crop = Crop(image, mask, region, (3.0,) * 3, head)
    one, two = painter.paint([crop, crop], [1, 2])
    assert marked(crop).unique().tolist() == [-1, 0, 1]
    assert np.abs(one - image)[0][~region].max() < 1e-6
    assert not np.allclose(one, two, atol=1e-3)
    assert painter.paint([crop], [1])[0].tobytes() == one.tobytes()


def test_a_volume_is_painted_without_copies_of_it(run, monkeypatch):
    from medgen.generation.insertion.painter import Crop
    from medgen.training import sampling

    painter, mask = open_painter(run / "latest.pt", steps=1), np.zeros((16,) * 3, bool)
    mask[7:9, 7:9, 7:9] = True
    image, head = np.zeros((1, 16, 16, 16), np.float32), np.ones_like(mask)
    sizes, sample = [], sampling.sample

    def counted(strategy, space, network, condition, *rest, **more):
        sizes.append(len(condition))
        return sample(strategy, space, network, condition, *rest, **more)

    monkeypatch.setattr(sampling, "sample", counted)
    painter.paint([Crop(image, mask, grown(mask, (3.0,) * 3, 4.0), (3.0,) * 3, head)], [1])
    assert sizes == [1]
