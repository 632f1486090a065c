"""Crops of samples: parts of them, where the place in the run says, around lesions as often as asked for."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import RECIPES, TINY
from faults.variants import AUTOENCODER, SMALL
from latents import BRAVO, store_of

from medgen.api.tables import DataSettings
from medgen.api.values import Mode
from medgen.config.recipe import load
from medgen.data.store.loader import Loader
from medgen.data.store.patches import Patches
from medgen.errors import RecipeError
from medgen.generation.model import draw_samples, load_model
from medgen.run import checkpoint

BOTH = pytest.mark.parametrize("axes", [2, 3])


def store_and(cohort, axes, share=0.0, side=8, **more):
    store = store_of(cohort, dimensions=axes, image_size=16, val_fraction=0.25, **more)
    return store, Patches(store, (side,) * axes, share, seed=3)


@BOTH
def test_a_crop_is_a_part_of_its_sample_in_every_channel(axes, cohort):
    store, patches = store_and(cohort, axes, 0.5)
    rows = np.resize(store.select("train"), 12)
    corners = patches.drawn(rows, np.arange(12))
    made = patches.read(rows, BRAVO.names, corners)
    whole = store.read(rows, BRAVO.names)
    for crop, sample, corner in zip(made, whole, corners, strict=True):
        where = tuple(slice(start, start + 8) for start in corner)
        assert np.array_equal(crop, sample[(slice(None), *where)])
    assert len(np.unique(corners, axis=0)) > 6
    assert corners.min() >= 0
    assert corners.max() <= 8


@BOTH
def test_crops_depend_on_the_place_in_the_run_and_on_nothing_else(axes, cohort):
    store, patches = store_and(cohort, axes, 0.5)
    given = (BRAVO, "train", 3, None, None)
    one, other = (Loader(store, *given, patches=each) for each in (patches, store_and(cohort, axes, 0.5)[1]))  # fmt: skip
    first = [one.at(position, 4) for position in (0, 4, 8)]
    again = other.at(8, 4)  # as a run that is resumed there
    assert torch.equal(first[2].image, again.image)
    assert torch.equal(first[2].condition, again.condition)
    assert first[0].image.shape[2:] == (8,) * axes
    samples = np.arange(3)
    assert torch.equal(one.read(samples).image, other.stored(samples).image)
    for each in (one, other):
        each.close()


PLACED = BRAVO._replace(numbers=("position", "place"))


@BOTH
def test_a_batch_says_where_its_crops_lie_drawn_or_fixed(axes, cohort):
    store, patches = store_and(cohort, axes, 0.5)
    mode = PLACED if axes == 2 else BRAVO._replace(numbers=("place",))
    loader = Loader(store, mode, "train", 3, patches=patches)
    rows = np.array(loader.slices(5, 6))
    samples = np.arange(3)
    fixed = loader.read(samples)
    for batch, chosen, corners in (
        (loader.at(5, 6), rows, patches.drawn(rows, np.arange(5, 11))),
        (fixed, loader.rows[samples], patches.fixed(loader.rows[samples])),
    ):
        assert batch.place.dtype == torch.float32
        assert batch.place[:, 0].tolist() == corners.tolist()
        assert batch.place[:, 1].tolist() == [[16] * axes] * len(chosen)
        for image, corner, row in zip(batch.image, batch.place[:, 0].int(), chosen, strict=True):
            where = tuple(slice(start, start + 8) for start in corner.tolist())
            whole = store.read(np.array([row]), ["bravo"])[0]
            assert np.array_equal(image.numpy(), whole[(slice(None), *where)])
    assert torch.equal(loader.stored(samples).place, fixed.place)
    loader.close()


def test_a_crop_has_the_position_of_its_slice(cohort):
    store, patches = store_and(cohort, 2)
    loader = Loader(store, PLACED, "train", 3, patches=patches)
    batch, whole = loader.read(np.arange(4)), Loader(store, PLACED, "train", 3).read(np.arange(4))
    assert batch.numbers.shape == (4, 1)
    assert torch.equal(batch.numbers, whole.numbers)
    assert whole.place == ()


def test_the_share_of_crops_around_lesions_is_the_one_asked_for(cohort):
    for share, least, most in ((0.0, 0, 0.8), (0.5, 0.35, 0.9), (1.0, 1, 1)):
        store, patches = store_and(cohort, 3, share)
        rows = np.array([row for row in store.select("train") if len(patches.lesions(row))])
        rows = np.resize(rows, 200)
        masks = patches.read(rows, ["seg"], patches.drawn(rows, np.arange(200))) > 0
        assert least <= masks.any((1, 2, 3, 4)).mean() <= most


def test_every_lesion_has_the_same_chance_however_small(cohort, monkeypatch):
    store, patches = store_and(cohort, 3, 1.0, side=4)
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[0:6, 0:6, 0:6], mask[13, 13, 13] = 1, 1
    monkeypatch.setattr(store, "raw", lambda channel, row: mask)
    monkeypatch.setitem(store.lesion_area, "seg", np.ones(len(store), int))
    assert patches.lesions(0).tolist() == [[3, 3, 3], [13, 13, 13]]
    corners = patches.drawn(np.zeros(400, int), np.arange(400))
    small = (corners > 8).all(1)
    assert 160 < small.sum() < 240
    assert corners[small].min() >= 10  # up to a quarter of the crop from its middle
    assert corners.max() == 12  # never beyond the sample


def test_a_sample_without_lesions_gives_crops_of_anywhere(cohort, monkeypatch):
    store, patches = store_and(cohort, 2, 1.0)
    monkeypatch.setitem(store.lesion_area, "seg", np.zeros(len(store), int))
    corners = patches.drawn(np.zeros(50, int), np.arange(50))
    assert len(np.unique(corners, axis=0)) > 25


def test_nothing_is_held_of_samples_but_where_their_lesions_are(cohort):
    """What is read lies in a file, which the system may take back."""
    store, patches = store_and(cohort, 3, 1.0)
    rows = np.arange(len(store))
    patches.read(rows, BRAVO.names, patches.drawn(rows, rows))
    assert not any(store.raw(name, 0).flags.owndata for name in BRAVO.names)
    assert sum(each.nbytes for each in patches._lesions.values()) < 1000


def test_whole_samples_are_given_without_a_size():
    assert Patches.of(None, DataSettings(), 0) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("data.patch_size=32", "data.patch_size: got 32, expected at most data.image_size = 16"),
        ("data.patch_size=[8,16,32]", "data.patch_size: got [8, 16, 32], expected at most"),
        ("data.patch_size=9", "data.patch_size: got 9, expected a multiple of 2"),
        ("data.patch_size=8 data.dimensions=2 data.augment.flip=0.5",
         "data.augment: is on, but changes whole slices, and crops are trained on"),
        ("data.patch_size=8 data.dimensions=2 data.crop=lesions", 'but data.crop = "lesions" cuts crops'),
        ("data.patch_size=[8,8,8] data.dimensions=2", "expected one number, as data.dimensions is 2"),
        ("data.lesion_patches=0.5", "data.lesion_patches: got 0.5, but no crops are trained on"),
    ],
)  # fmt: skip
def test_crops_that_cannot_be_are_told(given, told):
    small = (*TINY, *SMALL, *AUTOENCODER, "data.dimensions=3")
    with pytest.raises(RecipeError) as error:
        load(RECIPES / "vae_bravo.toml", (*small, *given.split()))
    assert any(told in line for line in error.value.lines), error.value.lines


@pytest.mark.parametrize("space", ["space_to_depth", "wavelet"])
def test_whole_samples_are_made_of_the_blocks_of_the_space_as_crops_are(space):
    given = (f"space={space}", "data.image_size=17", "data.patch_size=8", *SMALL)
    with pytest.raises(RecipeError) as error:
        load(RECIPES / "bravo_rflow_3d.toml", given)
    [line] = error.value.lines
    assert "data.image_size: got 17, expected a multiple of" in line


def test_latents_are_never_of_crops():
    with pytest.raises(RecipeError) as error:
        load(RECIPES / "bravo_rflow_latent.toml", ("data.patch_size=64",))
    assert (
        "data.patch_size: is given, but latents are made of whole samples" in error.value.lines[0]
    )


def test_lesions_need_a_mask(cohort):
    settings = DataSettings(root=cohort, patch_size=8, lesion_patches=0.5, image_size=16)
    from medgen.data.store.store import open_store

    with pytest.raises(RecipeError, match=r"data.lesion_patches: is 0.5, but no mask is among"):
        open_store(settings, Mode(images=("bravo",)).names, frozenset({"seg"}))


GIVEN = (*TINY, *SMALL, "data.patch_size=8", "data.lesion_patches=0.5", "training.warmup_steps=0",
         "training.steps=2", "data.val_fraction=0.25")  # fmt: skip
AS_DRAWN = ("--max-area", 1, "--steps", 2, "--batch-size", 2, "--inside", "off", "--no-audit")


@pytest.fixture(scope="module")
def models(cohort, tmp_path_factory):
    """A folder with `seg` and `bravo`, which knows its place: models of crops of volumes after two steps."""
    from medgen.cli.main import main

    folder = tmp_path_factory.mktemp("crops")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        for mode in ("seg", "bravo"):
            place = ('mode.bravo.numbers=["place"]',) if mode == "bravo" else ()
            given = (f"data.root={cohort}", *GIVEN, *place, f"run.dir={folder}/{mode}")
            with pytest.raises(SystemExit) as ended:
                main(["train", f"{mode}_rflow_3d", *given])
            assert not ended.value.code
    return folder


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.nii.gz")}


def test_models_of_crops_make_whole_pairs_and_each_the_same_alone_and_in_shards(
    models, medgen, tmp_path
):
    given = (
        "generate",
        "--seg-model",
        models / "seg",
        "--image-model",
        models / "bravo",
        *AS_DRAWN,
    )
    result = medgen(*given, "--num-images", 4, "--output-dir", tmp_path / "all")
    assert result.code == 0, result.err
    whole = files(tmp_path / "all")
    assert len(whole) == 8
    for path in (tmp_path / "all").rglob("*.nii.gz"):
        assert nib.load(path).shape == (16, 16, 16)
    made = ("--num-images", 4, "--output-dir", tmp_path / "shards")
    for shard in ("2/2", "1/2"):
        assert medgen(*given, *made, "--shard", shard).code == 0
    assert files(tmp_path / "shards") == whole
    assert medgen(*given, "--only", 3, "--output-dir", tmp_path / "alone").code == 0
    alone = files(tmp_path / "alone")
    assert len(alone) == 2
    assert alone.items() <= whole.items()


def test_the_network_sees_tiles_of_the_size_of_its_crops(models):
    model = load_model(models / "bravo/latest.pt")
    seen, network = [], model.parts.network
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    condition = torch.ones(1, 1, *model.grid.shape)
    made = draw_samples(model, condition, [torch.Generator().manual_seed(0)], 1)
    assert made.shape == (1, 1, 16, 16, 16)
    side = model.parts.space.shape((8, 8, 8))[1]
    assert [tuple(tile.shape[2:]) for tile in seen] == [(side,) * 3] * 27
    place = [tile[0, -3:] for tile in seen]  # a channel for each axis
    assert place[0].min() == -1 + 1 / (2 * side)
    assert place[-1].max() == 1 - 1 / (2 * side)
    seen.clear()
    guided = draw_samples(model, condition, [torch.Generator().manual_seed(0)], 1, guidance=1.0)
    assert [tuple(tile.shape[2:]) for tile in seen] == [(side,) * 3] * 54
    masks = [tile[0, model.parts.space.channels : -3] for tile in seen]  # with, and without a mask
    assert {float(each.min()) for each in masks[:27]} == {1.0}
    assert {float(each.max()) for each in masks[27:]} == {-1.0}
    assert all(torch.equal(seen[at][0, -3:], seen[at + 27][0, -3:]) for at in range(27))
    assert not torch.equal(guided, made)
    assert model.numbers is None
    assert "numbers" not in checkpoint.load(models / "bravo/latest.pt")["data"]


def test_pairs_of_slices_have_positions_and_places(cohort, medgen, tmp_path):
    known = ('mode.bravo.numbers=["position", "place"]', "space=wavelet", "data.patch_size=12")
    given = (f"data.root={cohort}", *GIVEN, *known, f"run.dir={tmp_path}/run")
    result = medgen("train", "bravo_rflow", *given)
    assert result.code == 0, result.err
    assert "not told where" not in result.err
    made = ("--image-model", tmp_path / "run", "--seg-model", cohort, "--num-images", 2)
    result = medgen("generate", *made, *AS_DRAWN, "--output-dir", tmp_path / "out")
    assert result.code == 0, result.err
    assert nib.load(tmp_path / "out/train/syn_00000/bravo.nii.gz").shape == (16, 16, 1)
    line = json.loads((tmp_path / "out/manifest.jsonl").read_text().splitlines()[1])
    assert list(line["numbers"]) == ["position"]


def test_previews_of_a_run_of_crops_show_crops(cohort, medgen, tmp_path):
    shown = ("callbacks.previews.count=2", "callbacks.previews.steps=1")
    given = (f"data.root={cohort}", *GIVEN, "callbacks.previews=true", *shown)
    result = medgen("train", "bravo_rflow", *given, f"run.dir={tmp_path}/run")
    assert result.code == 0, result.err
    told = 'not told where in the whole a crop lies, and so knows no heads. Give mode.bravo.numbers=["place"].'
    assert told in result.err
    assert "in crops of 8 px" in result.out
    assert [*(tmp_path / "run/previews").glob("samples_*.png")]


def test_whole_volumes_are_encoded_in_tiles_as_the_crops_of_the_autoencoder(
    cohort, medgen, tmp_path
):
    given = (f"data.root={cohort}", *TINY, *SMALL, "training.steps=2", "data.val_fraction=0.25")
    crops = ("data.dimensions=3", "data.patch_size=8", "data.lesion_patches=0.5")
    vae = medgen("train", "vae_bravo", *given, *AUTOENCODER, *crops, f"run.dir={tmp_path}/vae")
    assert vae.code == 0, vae.err
    latent = ("space=latent", f"space.latent.checkpoint={tmp_path}/vae", "space.latent.factor=2")
    result = medgen("train", "bravo_rflow_3d", *given, *latent, f"run.dir={tmp_path}/run")
    assert result.code == 0, result.err
    model = load_model(tmp_path / "run/latest.pt")
    assert model.grid.shape == (16, 16, 16)
    assert model.parts.space.images.tiles == ((4, 4, 4), 1)
    assert checkpoint.load(tmp_path / "vae/latest.pt")["position"]["step"] == 2
