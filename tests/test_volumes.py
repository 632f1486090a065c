"""Volumes from the recipe to the files of pairs: trained, resumed, generated and judged.

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
from medgen_builtins.segmenters.small_unet import SmallUnet
from PIL import Image

from medgen import pictures
from medgen.api.tables import DataSettings
from medgen.config.recipe import load
from medgen.data.grid import Grid
from medgen.data.store.store import open_store
from medgen.errors import RecipeError
from medgen.evaluation import arms, evaluate, obedience, two_sample
from medgen.generation import pair_writer as pairs
from medgen.generation.pair_format import AS_MADE
from medgen.generation.pair_line import lesion_figures
from medgen.run import checkpoint, optim

VOLUMES = (*TINY, *SMALL[:2], "callbacks.tensorboard=false", "training.warmup_steps=0")
AS_DRAWN = ("--max-area", 1, "--steps", 2, "--batch-size", 2, "--inside", "off")


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
    "residual": (
        "space=wavelet",
        "space.wavelet.fit_given=true",
        "strategy.rflow.prediction=residual",
        "data.patch_size=8",
    ),
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
@pytest.mark.parametrize("recipe", ["demo_seg_3d", "demo_bravo_3d"])
def test_the_recipes_of_make_demo_3d_train(recipe, medgen, cohort, tmp_path):
    """Of smaller volumes, for two steps."""
    small = ("data.image_size=[16,32,16]", "data.spacing=0", "data.workers=1")
    given = (f"data.root={cohort}", *small, "training.steps=2", "training.batch_size=2")
    result = medgen("train", recipe, *given, f"run.dir={tmp_path / 'run'}")
    assert result.code == 0, result.err
    assert checkpoint.load(tmp_path / "run/latest.pt")["position"]["step"] == 2


@pytest.mark.slow
def test_a_dry_run_of_volumes_says_what_they_take(medgen, cohort):
    given = (f"data.root={cohort}", *VOLUMES, "data.spacing=0", "training.init_from=")
    result = medgen("train", "demo_bravo_3d", *given, "training.steps=2", "--dry-run")
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


def test_volumes_are_audited_where_they_are_made_and_a_line_tells_of_their_lesions(
    models, medgen, made, tmp_path
):
    assert header(made)["dimensions"] == 3
    assert header(made)["audit"] == {"done": False, "why": "--no-audit"}
    row = json.loads((made / "manifest.jsonl").read_text().splitlines()[1])
    assert set(row["lesions"]) == {"count", "mm3", "outside"}
    given = [each for each in arguments(models, tmp_path / "out", 2) if each != "--no-audit"]
    result = medgen(*given)
    assert result.code == 0, result.err
    assert "audit: 0 of 2 pairs are copies of training data" in result.out
    assert header(tmp_path / "out")["audit"]["volumes"] == 3
    rows = (tmp_path / "out/manifest.jsonl").read_text().splitlines()[1:]
    assert all(json.loads(each)["nearest"]["to"].startswith("patient ") for each in rows)
    assert files(tmp_path / "out/train").items() <= files(made / "train").items()
    picture = Image.open(tmp_path / "out/set_aside/audit.png")
    assert picture.size[0] == 6 * (160 + pictures.GAP) + pictures.GAP


def test_a_volume_whose_lesion_lies_outside_of_its_head_is_drawn_again():
    image = np.full((16,) * 3, -1, np.float32)
    image[3:13, 3:13, 3:13] = 0.3
    mask = np.full(image.shape, -1, np.float32)
    mask[14:, 14:, 14:] = 1
    good = {"bravo": image, "seg": np.roll(mask, -8, (0, 1, 2))}

    class Make(pairs.Generator):
        inside = 3

        def __init__(self):
            pass

        def _names(self):
            return frozenset({"seg"})

        def _again(self, pair, images):
            return pair._replace(faults=[*pair.faults, ""], channels=good)

    bad = pairs.Pair(0, [""], {"bravo": image, "seg": mask}, frozenset({"seg"}))
    assert Make().settled(bad).faults == ["outside_head", ""]
    assert Make().settled(bad._replace(channels=good)).faults == [""]


def test_a_copied_volume_is_set_aside(cohort, medgen, tmp_path):
    folder = tmp_path / "pairs"
    source = DataSettings(root=cohort, dimensions=3, image_size=16, workers=1, val_fraction=0.0)
    store = open_store(source, ("bravo", "seg"), frozenset({"seg"}))
    wanted = store.read(np.arange(4), ("bravo", "seg")).astype(np.float32)
    wanted[0] = wanted[0, :, ::-1]  # a training volume, flipped
    wanted[1:, 0] = np.random.default_rng(0).permuted(wanted[1:, 0], axis=2)  # and three new ones
    maker = type("Maker", (), {**MAKER, "grid": store.grid, "made": wanted})()
    pairs.generate(maker, range(4), folder)
    result = medgen("audit", folder, "data.workers=1", "--against", cohort)
    assert result.code == 11
    assert "1 of 4 pairs are copies of training data" in result.out
    rows = [json.loads(each) for each in (folder / "manifest.jsonl").read_text().splitlines()[1:]]
    assert [each.get("set_aside") for each in rows] == ["copy of a volume", None, None, None]
    assert rows[0]["nearest"]["to"] == "patient 0"
    assert (folder / "set_aside/syn_00000/bravo.nii.gz").is_file()


MAKER = {
    "form": AS_MADE,
    "image": None,
    "masks": None,
    "batch_size": 4,
    "identity": lambda self: {"seed": 0, "dimensions": 3},
    "made_with": lambda self: {},
    "shown": lambda self: (("bravo",), ("seg",)),
    "settled": lambda self, pair: pair,
    "block": lambda self, number: (
        pairs.Pair(index, [""], {"bravo": one[0], "seg": one[1]}, frozenset({"seg"}))
        for index, one in enumerate(self.made)
    ),
}
"""What the writer of pairs asks of a generator; `made` are the volumes."""


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
    assert found == {"lesions": {"count": 2, "mm3": 24.0, "outside": 1.0}}


def test_models_of_slices_and_of_volumes_give_no_pairs_together(models, trained, medgen, tmp_path):
    given = ("--seg-model", trained / "seg", "--image-model", models / "bravo")
    result = medgen("generate", *given, "--num-images", 1, "--output-dir", tmp_path / "out")
    assert result.code == 2
    assert (
        "makes axial masks, the image model (--image-model) makes volumes of images" in result.err
    )
    assert "data.dimensions" in result.err
    assert not (tmp_path / "out").exists()


def quick_judges(patch):
    """Segmenters of one step, which find nothing, and a classifier of two."""
    settings = SmallUnet(channels=(4, 4))
    fit = obedience.fit

    def quickly(_, real, **given):
        return fit(settings, real, **{**given, "steps": 1})

    patch.setattr(obedience, "fit", quickly)
    patch.setattr(two_sample, "STEPS", 2)
    patch.setattr(evaluate, "DRAWS", 10)


def test_volumes_whose_lesion_no_segmenter_finds_are_set_aside(
    models, medgen, tmp_path, monkeypatch
):
    quick_judges(monkeypatch)
    given = [each for each in arguments(models, tmp_path / "out") if each != "--no-audit"]
    result = medgen(*given, "--min-obedience", 0.99)
    assert "obedience: 3 pairs below 0.99 are in" in result.out, result.err
    assert header(tmp_path / "out")["dimensions"] == 3


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> Path:
    """Ten patients with one image: enough for real against real."""
    from data.cohort import write_cohort

    return write_cohort(tmp_path_factory.mktemp("ten"), 10, channels=("bravo", "seg"), seed=1)


def test_a_card_of_volumes_has_all_that_one_of_slices_has(
    patients, made, medgen, tmp_path, monkeypatch
):
    quick_judges(monkeypatch)
    out = ("--output", tmp_path / "card.json", "--html", tmp_path / "card.html")
    given = ("--features", "radiomics", "--split", "all", "--control", 0, "data.workers=1")
    result = medgen("evaluate", patients, made, *given, *out)
    assert result.code == 0, result.err
    card = json.loads((tmp_path / "card.json").read_text())
    assert (card["made"]["volumes"], card["real"]["volumes"]) == (3, 10)
    assert card["selection"]["grid"].startswith("16 px of ")
    found: dict[str, set[str]] = {}
    for each in card["figures"]:
        found.setdefault(each["section"], set()).add(each["name"])
    planes = ("sagittal", "coronal", "axial")
    assert found["two samples"] == {f"AUC of a classifier, {plane} slices" for plane in planes}
    assert found["diversity"] == {f"MS-SSIM among samples, {plane} slices" for plane in planes}
    assert found["neighbouring slices"] == {f"correlation of {plane} slices" for plane in planes}
    assert "KID" in found["features: radiomics"]
    assert "head volume" in found["anatomy and intensity"]
    assert "lesions per volume" in found["lesions"]
    assert {"GLCM of the head, distance", "GLSZM of the head, distance"} <= found["radiomics"]
    assert "Dice" in found["obedience"]
    page = (tmp_path / "card.html").read_text()
    assert "3 pairs beside 10 real volumes" in page
    monkeypatch.setattr(evaluate, "VOLUMES", 2)
    assert len(evaluate.read_pairs(made, 2)) == 2


def test_an_arm_of_volumes_is_trained_and_scored_by_lesions_in_3d():
    from evaluation.made_up import volumes

    pool, test, synthetic = volumes(3), volumes(2, seed=1, first=10), volumes(4, seed=2, first=20)
    given = arms.Comparison(SmallUnet(channels=(4, 4)), pool, test, synthetic, 3, 1.0, 2, 0)
    found = arms.run(given, arms.Arm(arms.PASTED, 3, "pasted"), 0)
    assert (found["real"], found["added"]) == (3, 3)
    assert "false positives per volume" in found["scores"]
    assert len(found["scores"][arms.PRIMARY]) == 2
    exact = arms.scores_of(test.masks, test)
    assert exact[arms.PRIMARY] == [1.0, 1.0]
    assert exact["false positives per volume"] == [0.0, 0.0]


@pytest.mark.slow
def test_volumes_are_proved(patients, made, medgen, tmp_path):
    given = ("--steps", 10, "--processes", 1, "segmenters.small_unet.channels=[4,4]")
    data = ("data.val_fraction=0.4", "data.workers=1")
    result = medgen("prove", patients, made, *given, *data, "--output-dir", tmp_path / "out")
    assert result.code == 0, result.err
    proof = json.loads((tmp_path / "out/prove.json").read_text())
    assert proof["verdict"] in ("helps", "no evidence", "hurts")
    assert "false positives per volume" in proof["scores"]["real + pairs"]


def test_samples_are_measured_while_volumes_are_trained(cohort, medgen, tmp_path, monkeypatch):
    monkeypatch.setattr(obedience, "STEPS", 1)
    measured = ("every=1", "count=8", "steps=1")
    given = [f"callbacks.evaluation.{each}" for each in measured]
    given += ["callbacks.checkpoints.metric=kid", "callbacks.previews=false", "training.steps=2"]
    data = (f"data.root={cohort}", *VOLUMES, "data.val_fraction=0.5")
    result = medgen("train", "bravo_rflow_3d", *data, *given, f"run.dir={tmp_path / 'run'}")
    assert result.code == 0, result.err
    lines = [json.loads(each) for each in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    last = {name: value for line in lines for name, value in line.items()}
    assert np.isfinite(last["kid"])
    assert {"obedience", "obedience/real"} <= last.keys()
    assert (tmp_path / "run/best.pt").is_file()


def test_volumes_and_the_real_ones_they_learned_from_are_exported(models, medgen, made, tmp_path):
    given = ("--nnunet", tmp_path / "out", "--real", models / "bravo", "--id", 7)
    result = medgen("export", made, *given)
    assert result.code == 0, result.err
    folder = tmp_path / "out/Dataset007_Medgen"
    labels = sorted(path.name for path in (folder / "labelsTr").iterdir())
    assert labels == [
        f"{name}.nii.gz"
        for name in (*(f"patient_{n:03d}" for n in range(4)), *(f"syn_{n:05d}" for n in range(3)))
    ]
    for path in (folder / "labelsTr").iterdir():
        assert nib.load(path).shape == (16, 16, 16)
    mine, theirs = (
        nib.load(path)
        for path in (
            folder / "imagesTr/syn_00001_0000.nii.gz",
            made / "train/syn_00001/bravo.nii.gz",
        )
    )
    assert np.allclose(mine.affine, theirs.affine)
    assert np.array_equal(mine.dataobj, theirs.dataobj)


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
