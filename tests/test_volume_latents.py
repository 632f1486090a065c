"""Autoencoders of volumes, and diffusion in their latents, from the recipe to the files of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import latents
import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import RECIPES, TINY
from faults.variants import AUTOENCODER, SMALL
from medgen_builtins._similarity import ssim
from PIL import Image

from medgen import pictures
from medgen.config.recipe import load
from medgen.data.store.latent_store import BLOCK, open_latent_store
from medgen.run import checkpoint

VOLUMES = (*TINY, *SMALL, "data.dimensions=3", "data.val_fraction=0.25", "training.warmup_steps=0")
LATENT = ("space=latent", "space.latent.factor=2", "space.latent.tile.size=8")


@pytest.fixture(scope="module")
def vae(tmp_path_factory, cohort) -> Path:
    """The run of an autoencoder of volumes with a discriminator, after two steps, with previews."""
    from medgen.cli.main import main

    folder = tmp_path_factory.mktemp("vae")
    given = (
        *VOLUMES,
        *AUTOENCODER,
        "callbacks.previews.count=2",
        "training.batch_size=2",
        "training.steps=2",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as ended:
            main(["train", "vae_bravo", f"data.root={cohort}", *given, f"run.dir={folder}/run"])
        assert not ended.value.code
    return folder / "run"


def test_an_autoencoder_of_volumes_trains_with_a_discriminator_of_three_axes(vae):
    state = checkpoint.load(vae / "latest.pt")
    kernels = [each for each in state["network"].values() if each.ndim > 1]
    critic = [each for each in state["turns"]["discriminator"].values() if each.ndim > 1]
    assert {each.ndim for each in kernels + critic} == {5}
    last = json.loads((vae / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"psnr/head", "ssim", "loss/val/discriminator", "l1/lesion", "latent/dead"} <= set(last)
    picture = Image.open(next((vae / "previews").glob("reconstructions_*.png")))
    step = 160 + pictures.GAP
    assert picture.size == (2 * 9 * step + pictures.GAP, step + pictures.GAP)


def test_the_folder_of_a_run_says_how_many_axes_it_has(tiny, tmp_path):
    from medgen.run import folder

    given = (*tiny, *AUTOENCODER, f"run.root={tmp_path}")
    for axes in (2, 3):
        recipe = load(RECIPES / "vae_bravo.toml", (*given, f"data.dimensions={axes}"))
        assert folder.create(recipe).parent == tmp_path / f"vae_{axes}d/bravo"


def test_pairs_are_made_in_latents_of_volumes_in_tiles(vae, cohort, medgen, tmp_path):
    given = (f"data.root={cohort}", *VOLUMES, *LATENT, f"space.latent.checkpoint={vae}")
    result = medgen("train", "bravo_rflow_3d", *given, "training.steps=2", f"run.dir={tmp_path}/r")
    assert result.code == 0, result.err
    state = checkpoint.load(tmp_path / "r/latest.pt")
    assert state["space"]["autoencoder"]["scale"].shape == (4,)
    models = ("--image-model", tmp_path / "r", "--seg-model", cohort, "--no-audit")
    result = medgen("generate", *models, "--num-images", 1, "--steps", 1, "--max-area", 1, "--inside", "off",
                    "--output-dir", tmp_path / "out")  # fmt: skip
    assert result.code == 0, result.err
    image = nib.load(tmp_path / "out/train/syn_00000/bravo.nii.gz")
    assert image.shape == (16, 16, 16)
    assert len(np.unique(image.dataobj)) > 10


def test_what_latents_of_volumes_lose_is_audited(vae, cohort, medgen, tmp_path):
    given = (f"data.root={cohort}", *VOLUMES, *LATENT, f"space.latent.checkpoint={vae}")
    result = medgen("latent-audit", "bravo_rflow_3d", *given, "--json", tmp_path / "audit.json")
    assert result.code == 0, result.err
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert sum(row["lesions"] for row in figures["sizes"]) > 0
    assert "encoded and decoded, 1 volumes" in result.out


def test_an_autoencoder_of_slices_is_none_of_volumes(autoencoder, cohort, medgen, tmp_path):
    given = (f"data.root={cohort}", *VOLUMES, *LATENT, f"space.latent.checkpoint={autoencoder}")
    result = medgen("train", "bravo_rflow_3d", *given, "training.steps=2", f"run.dir={tmp_path}/r")
    assert result.code == 4
    assert "an autoencoder of slices, but data.dimensions is 3" in result.err


def test_volumes_are_encoded_one_by_one(cohort, tmp_path):
    class Space(latents.Counting):
        def prepare(self, image):
            assert len(image) == BLOCK[3] == 1
            self.asked += 1
            return image

    store = latents.store_of(cohort, dimensions=3)
    space = Space()
    open_latent_store(store, latents.BRAVO, space, latents.CPU, cache=tmp_path)
    assert space.asked == len(store.select("train")) + len(store.select("val"))


def test_the_likeness_of_volumes_has_a_window_of_three_axes():
    """Volumes that are the same along an axis are as alike as their slices."""
    one, two = torch.rand(2, 2, 1, 12, 14)
    volumes = [each[..., None].expand(*each.shape, 13) for each in (one, two)]
    for axis in (2, 3, 4):
        moved = [each.movedim(4, axis) for each in volumes]
        found = ssim(*moved).movedim(axis, 4)
        torch.testing.assert_close(found, ssim(one, two)[..., None].expand_as(found))
