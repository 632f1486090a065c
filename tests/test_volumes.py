"""Volumes from the recipe to the files of pairs: trained, resumed, generated, and never judged as what they are not.

Covers: medgen.cli.generators.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import RECIPES, TINY
from faults.variants import SMALL
from medgen_builtins.losses import _perceptual
from PIL import Image

from medgen import pictures
from medgen.api.tables import DataSettings
from medgen.config.recipe import load
from medgen.data.grid import Grid
from medgen.data.store.store import open_store
from medgen.errors import RecipeError
from medgen.generation import pair_writer as pairs
from medgen.generation.pair_line import lesion_figures
from medgen.run import checkpoint, optim

VOLUMES = (*TINY, *SMALL[:2], "callbacks.tensorboard=false", "training.warmup_steps=0")
AS_DRAWN = ("--max-area", 1, "--steps", 2, "--batch-size", 2)


@pytest.fixture(scope="module")
def models(tmp_path_factory, cohort) -> Path:
    """A folder with `seg` and `bravo`: models of volumes after a few steps, `bravo` with previews."""
    from medgen.cli.main import main

    folder = tmp_path_factory.mktemp("volumes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        for mode in ("seg", "bravo"):
            given = (f"data.root={cohort}", *VOLUMES, "data.val_fraction=0.25")
            given += ("callbacks.previews=false",) if mode == "seg" else ()
            with pytest.raises(SystemExit) as ended:
                main(["train", f"{mode}_rflow_3d", *given, "training.steps=3", f"run.dir={folder / mode}"])  # fmt: skip
            assert not ended.value.code
    return folder


def arguments(models: Path, out: Path, count: int = 3) -> tuple[object, ...]:
    given = ("--seg-model", models / "seg", "--image-model", models / "bravo", "--no-audit")
    return ("generate", *given, "--num-images", count, "--output-dir", out, *AS_DRAWN)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def header(out: Path) -> dict[str, object]:
    return json.loads((out / "manifest.jsonl").read_text().splitlines()[0])


@pytest.fixture(scope="module")
def made(models, tmp_path_factory) -> Path:
    """Three pairs of volumes."""
    from medgen.cli.main import main

    out = tmp_path_factory.mktemp("made") / "pairs"
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments(models, out)])
    assert not ended.value.code
    return out


# Training


def test_a_run_of_volumes_validates_previews_and_keeps_its_grid(models):
    folder = models / "bravo"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = {name for line in lines for name in line}
    assert {"loss/train", "loss/val", "psnr/x0", "mse/lesion"} <= measured
    state = checkpoint.load(folder / "latest.pt")
    model = pairs.load_model(folder / "latest.pt")
    assert model.grid == Grid.of_volumes((16,) * 3, state["data"]["spacing"])
    assert state["averaged"] is not None
    picture = Image.open(next((folder / "previews").glob("samples_*.png")))
    step = 160 + pictures.GAP
    assert picture.size == (2 * 6 * step + pictures.GAP, step + pictures.GAP)  # real and made
    trajectory = Image.open(next((folder / "previews").glob("trajectory_*.png")))
    assert trajectory.size == (8 * step + pictures.GAP, 2 * 3 * step + pictures.GAP)


def test_runs_of_volumes_have_a_folder_of_their_own(medgen, tiny, tmp_path):
    from medgen.run import folder

    given = (*tiny, "data.image_size=[16,24,16]", f"run.root={tmp_path}")
    where = folder.create(load(RECIPES / "bravo_rflow_3d.toml", given))
    assert where.relative_to(tmp_path).parts[:2] == ("diffusion_3d", "bravo")
    assert where.name.startswith("rflow_16x24x16_")
    where = folder.create(load(RECIPES / "bravo_rflow.toml", (*tiny, f"run.root={tmp_path}")))
    assert where.relative_to(tmp_path).parts[:2] == ("diffusion_2d", "bravo")


KINDS = {
    "ddpm": ("strategy=ddpm", "losses.mse=false", "losses.min_snr.gamma=5"),
    "pixel": ("space=pixel", "data.image_size=[16,8,16]"),
    "wavelet": ("space=wavelet", "space.wavelet.levels=2"),
    "dual": ("mode=dual", "network.unet.checkpointing=true", "training.accumulate=2"),
    "seg": ("mode=seg", "losses.bce.weight=0.1", "losses.dice.weight=0.1", "losses.l1.weight=1"),
    "flair": ("mode=flair", "training.memory_format=channels_last"),
    "pooled": ('mode.images.images=["t1_pre","t1_gd"]', "mode.images.pooled=true", "mode=images"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_mode_strategy_space_and_loss_trains_volumes(kind, medgen, cohort, tmp_path):
    given = (f"data.root={cohort}", *VOLUMES, "training.steps=2", *KINDS[kind])
    result = medgen("train", "bravo_rflow_3d", *given, f"run.dir={tmp_path / 'run'}")
    assert result.code == 0, result.err
    assert checkpoint.load(tmp_path / "run/latest.pt")["position"]["step"] == 2


@pytest.mark.slow
def test_a_dry_run_of_volumes_says_what_they_take(medgen, cohort):
    given = (f"data.root={cohort}", *VOLUMES, "training.steps=2")
    result = medgen("train", "demo_bravo_3d", *given, "--dry-run")
    assert result.code == 0, result.err
    assert "volumes to train on" in result.out
    assert "GFLOP" in result.out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("data.dimensions=2",), None),
        (("data.image_size=[16,16]",), "got [16, 16], expected a list of 3 integers"),
        (("data.dimensions=2", "data.image_size=[16,16,16]"), "got 3 numbers, expected one"),
        (("data.image_size=[16,15,16]",), "data.image_size: got 16x15x16, expected a multiple of"),
        (("data.image_size=[16,4,16]",), "data.image_size[1]: got 4, expected a value from 8"),
        (("data.axis=coronal",), 'data.axis: got "coronal", but volumes are not cut into slices'),
        (("data.crop=lesions", "data.augment.flip=0.5"), "changes whole volumes, and data.crop ="),
        (("callbacks.evaluation={}",), "got 3, but callbacks.evaluation is for slices"),
        (
            ('mode.bravo.numbers=["position", "lesion_size"]',),
            'got "position", which is known of slices alone, and data.dimensions is 3',
        ),
        (("mode=insert",), 'data.crop: got "none", expected "lesions", which mode.insert'),
    ],
)
def test_what_volumes_cannot_do_is_one_line(given, told):
    recipe = RECIPES / "bravo_rflow_3d.toml"
    given = ("network.unet.channels=[8,8]", "network.unet.attention=[false,false]", *given)
    if told is None:
        assert load(recipe, given).data.axes == 2
        return
    with pytest.raises(RecipeError) as error:
        load(recipe, given)
    assert any(told in line for line in error.value.lines), error.value.lines


def test_the_perceptual_distance_of_volumes_is_that_of_their_slices(monkeypatch):
    class Network:
        def __init__(self, *_: object):
            pass

        def distance(self, one, two):
            return (one - two).abs().amax((1, 2, 3))

    monkeypatch.setattr(_perceptual, "EfficientNet", Network)
    monkeypatch.setattr(_perceptual, "load", lambda *_: None)
    loss = _perceptual.distance(None, torch.device("cpu"))
    one, two = (torch.zeros(2, 1, 4, 6, 8) for _ in range(2))
    one[1, 0, 0, 0, 0] = 1  # one slice of 4, of 6 and of 8
    pair = [type("Made", (), {"x0": each})() for each in (one, two)]
    assert loss(*pair).tolist() == pytest.approx([0, (1 / 4 + 1 / 6 + 1 / 8) / 3])


def test_weights_of_volumes_are_ordered_for_three_axes():
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 3), torch.nn.Linear(2, 2))
    optim.use_channels_last(network, 3)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last_3d)


# Generating


def test_a_pair_is_two_volumes_with_the_models_affine_and_spacing(models, made):
    grid = pairs.load_model(models / "bravo/latest.pt").grid
    for index in range(3):
        images = {
            name: nib.load(made / f"train/syn_{index:05d}/{name}.nii.gz")
            for name in ("bravo", "seg")
        }
        for image in images.values():
            assert image.shape == (16, 16, 16)
            assert np.allclose(image.affine, grid.affine, atol=1e-4)
            assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
            assert image.header.get_zooms() == pytest.approx(grid.spacing)
            assert image.header.get_xyzt_units()[0] == "mm"
        assert images["bravo"].get_data_dtype() == np.int16
        assert set(np.unique(images["seg"].dataobj)) <= {0, 1}
    picture = Image.open(made / "pairs.png")
    assert picture.size[0] == 12 * (160 + pictures.GAP) + pictures.GAP  # two pairs of six tiles


def test_the_manifest_says_what_was_not_judged(models, medgen, made, tmp_path):
    assert header(made)["dimensions"] == 3
    assert header(made)["inside"].startswith("not judged, as pairs are volumes")
    assert header(made)["audit"] == {"done": False, "why": "--no-audit"}
    row = json.loads((made / "manifest.jsonl").read_text().splitlines()[1])
    assert set(row["lesions"]) == {"count", "mm3"}
    given = [each for each in arguments(models, tmp_path / "out", 1) if each != "--no-audit"]
    result = medgen(*given)
    assert result.code == 0, result.err
    assert result.out.count("not judged, as pairs are volumes") == 1
    why = "these pairs are volumes, and copies are looked for in slices"
    assert f"audit: not done, {why}" in result.out
    assert header(tmp_path / "out")["audit"] == {"done": False, "why": why}


def test_parts_and_single_pairs_have_the_bytes_of_all_at_once(models, medgen, made, tmp_path):
    for shard in ("2/2", "1/2"):
        assert medgen(*arguments(models, tmp_path / "parts"), "--shard", shard).code == 0
    assert files(tmp_path / "parts") == files(made)
    given = [*arguments(models, tmp_path / "one")]
    at = given.index("--num-images")
    given[at : at + 2] = ["--only", 2]
    assert medgen(*given).code == 0
    one = files(tmp_path / "one/train")
    assert one == {name: data for name, data in files(made / "train").items() if name in one}
    assert len(one) == 2


def test_masks_of_a_folder_keep_their_volume(models, medgen, cohort, tmp_path):
    given = ("--seg-model", cohort, "--image-model", models / "bravo", "--no-audit")
    result = medgen(
        "generate", *given, "--num-images", 4, "--output-dir", tmp_path / "out", *AS_DRAWN
    )
    assert result.code == 0, result.err
    voxel = pairs.load_model(models / "bravo/latest.pt").grid.cell
    truth = sorted(
        np.count_nonzero(nib.load(path).dataobj) * 2.0 for path in cohort.glob("*/seg.nii.gz")
    )
    masks = sorted(
        np.count_nonzero(nib.load(path).dataobj) * voxel
        for path in (tmp_path / "out/train").glob("*/seg.nii.gz")
    )
    assert masks == pytest.approx(truth, abs=voxel / 2)


def test_generated_volumes_are_read_as_they_were_written(made, tmp_path):
    settings = DataSettings(
        root=made, dimensions=3, image_size=16, workers=1, val_fraction=0.0, min_foreground=0.0
    )
    store = open_store(settings, ("bravo", "seg"), frozenset({"seg"}), None, tmp_path)
    found = store.read(np.arange(3), ("bravo", "seg")).astype(np.float32)
    for index, pair in enumerate(found):
        bravo, seg = (
            np.asarray(nib.load(made / f"train/syn_{index:05d}/{name}.nii.gz").dataobj)
            for name in ("bravo", "seg")
        )
        assert np.abs(pair[0] - (bravo / 500 - 1)).max() < 1e-3
        assert np.array_equal(pair[1] > 0, seg > 0)


def test_lesions_of_a_volume_are_counted_across_its_slices():
    mask = np.full((6, 6, 6), -1.0)
    mask[1, 1, 1] = mask[2, 2, 2] = mask[5, 5, 5] = 1
    found = lesion_figures(
        {"a": mask, "seg": mask}, frozenset({"seg"}), Grid.of_volumes((6,) * 3, 2.0)
    )
    assert found == {"lesions": {"count": 2, "mm3": 24.0}}


def test_models_of_slices_and_of_volumes_give_no_pairs_together(models, trained, medgen, tmp_path):
    given = ("--seg-model", trained / "seg", "--image-model", models / "bravo")
    result = medgen("generate", *given, "--num-images", 1, "--output-dir", tmp_path / "out")
    assert result.code == 2
    assert (
        "makes axial masks, the image model (--image-model) makes volumes of images" in result.err
    )
    assert "data.dimensions" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--obedience", "--audit"), "--obedience: looks at slices, and these models make volumes"),
        (("--steps", "auto"), "--steps auto: looks at slices, and these models make volumes"),
    ],
)
def test_what_judges_slices_is_refused_before_a_pair_is_made(given, told, models, medgen, tmp_path):
    result = medgen(*arguments(models, tmp_path / "out"), *given)
    assert result.code == 2
    assert told in result.err
    assert not list((tmp_path / "out").glob("train/*"))


@pytest.mark.parametrize("command", ["evaluate", "audit", "prove", "export"])
def test_commands_that_compare_slices_refuse_volumes_in_one_line(
    command, made, cohort, medgen, tmp_path
):
    given: dict[str, tuple[object, ...]] = {
        "evaluate": (cohort, made),
        "audit": (made, "--against", cohort),
        "prove": (cohort, made),
        "export": (made, "--nnunet", tmp_path / "out"),
    }
    result = medgen(command, *given[command])
    assert result.code == 3, result.err
    assert result.err.count("\n") == 1
    assert "is a volume of 16 x 16 x 16 voxels, and pairs are judged as slices" in result.err


def test_a_run_of_volumes_is_no_source_of_slices(models, medgen, made, tmp_path):
    result = medgen("evaluate", models / "bravo", made)
    assert result.code == 2
    assert "data.dimensions is 3, and slices are compared" in result.err


# Pictures


def test_a_volume_is_shown_in_three_planes_where_its_lesion_is():
    image = np.full((8, 10, 12), -1.0)
    mask = np.full(image.shape, -1.0)
    mask[6, 7, 9] = image[6, 7, 9] = 1
    for tile in pictures.tiles(image, [mask]):
        assert tile.shape == (160, 160, 3)
        assert (tile.reshape(-1, 3) == pictures.OUTLINES[0]).all(1).any()
    axial, coronal, sagittal = pictures.tiles(image, shown=mask)
    for tile, (across, up) in zip(
        (axial, coronal, sagittal), (((6 + 1), (7 + 0)), ((6 + 2), 9), ((7 + 1), 9)), strict=True
    ):
        side = 10 if tile is axial else 12
        y, x = np.unravel_index(tile[..., 0].argmax(), tile.shape[:2])
        assert x == pytest.approx((across + 0.5) * 160 / side, abs=8)
        assert y == pytest.approx(160 - (up + 0.5) * 160 / side, abs=8)
    assert len(pictures.tiles(image[0])) == 1
    assert all(tile.max() == 0 for tile in pictures.tiles(image))  # the middle shows nothing
