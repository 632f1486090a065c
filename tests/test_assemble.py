"""Recipe to run: channel counts, masks by label, pooled images, and what may not depend on the built-ins."""

import nibabel as nib
import numpy as np
import pytest
import torch

from medgen.config.recipe import load
from medgen.run import checkpoint
from medgen.run.assemble import assemble

CHANNELS = {"seg": (1, 1), "bravo": (2, 1), "dual": (3, 2)}
"""What the network sees and gives, as DESIGN's table of modes says."""


@pytest.mark.parametrize("strategy", ["ddpm", "rflow"])
@pytest.mark.parametrize("mode", CHANNELS)
def test_every_strategy_and_mode_has_its_channels_and_takes_two_steps(
    mode, strategy, medgen, tiny, tmp_path
):
    folder = tmp_path / "run"
    result = medgen("train", f"{mode}_{strategy}", *tiny, "training.steps=2", f"run.dir={folder}")
    assert result.code == 0, result.err
    weights = checkpoint.load(folder / "latest.pt")["network"]
    shapes = [value.shape for value in weights.values() if value.ndim == 4]
    assert (shapes[0][1], shapes[-1][0]) == CHANNELS[mode]
    first, second = (
        torch.load(folder / name, weights_only=True)["position"]["step"]
        for name in ("latest.pt", "best.pt")
    )
    assert first == 2
    assert second <= 2


@pytest.fixture
def labelled(tmp_path):
    """Patients whose segmentation has labels 1 (a ball) and 2 (its core)."""
    from data.cohort import make_patient, write_volume

    for number in range(3):
        volumes = make_patient(np.random.default_rng(number), (24, 24, 8))
        core = volumes["seg"] * (np.arange(24) % 2)[:, None, None].astype(np.uint8)
        folder = tmp_path / "labelled" / f"p{number}"
        write_volume(folder / "t1.nii.gz", volumes["bravo"])
        write_volume(folder / "labels.nii.gz", (volumes["seg"] + core).astype(np.uint8))
    return tmp_path / "labelled"


LABELLED = """
extends = "base/diffusion.toml"
[data]
root = "{root}"
files = {{ t1 = "t1.nii.gz", labels = "labels.nii.gz" }}
[data.masks]
tumour = {{ file = "labels", labels = [1, 2] }}
core = {{ file = "labels", labels = [2] }}
[mode.images]
images = {images}
condition = {condition}
[strategy.rflow]
[losses.mse]
"""


def labelled_recipe(path, root, images, condition):
    path.write_text(LABELLED.format(root=root, images=images, condition=condition))
    return path


def test_a_mask_with_several_labels_is_a_channel_per_label_from_data_to_pairs(
    labelled, medgen, tiny, tmp_path
):
    small = [each for each in tiny if not each.startswith("data.root")]
    masks = labelled_recipe(tmp_path / "masks.toml", labelled, '["tumour", "core"]', "[]")
    images = labelled_recipe(tmp_path / "images.toml", labelled, '["t1"]', '["tumour", "core"]')
    for name, recipe in {"masks": masks, "images": images}.items():
        result = medgen("train", recipe, *small, "training.steps=2", f"run.dir={tmp_path / name}")
        assert result.code == 0, result.err
    models = (
        "--seg-model",
        tmp_path / "masks/latest.pt",
        "--image-model",
        tmp_path / "images/latest.pt",
    )
    options = ("--num-images", 2, "--output-dir", tmp_path / "out", "--steps", 2, "--max-area", 1)
    options += (
        "--inside",
        "off",
        "--no-audit",
    )  # after a few steps there is no head that a lesion could lie in
    result = medgen("generate", *models, *options)
    assert result.code == 0, result.err
    folder = tmp_path / "out/train/syn_00000"
    assert sorted(path.name for path in folder.iterdir()) == [
        "core.nii.gz",
        "t1.nii.gz",
        "tumour.nii.gz",
    ]
    assert set(np.unique(nib.load(folder / "core.nii.gz").dataobj)) <= {0, 1}


def test_the_label_channels_are_what_the_labels_say(labelled, tiny, tmp_path):
    small = [each for each in tiny if not each.startswith("data.root")]
    recipe = load(
        labelled_recipe(tmp_path / "r.toml", labelled, '["t1"]', '["tumour", "core"]'),
        [*small, "training.steps=1"],
    )
    run = assemble(recipe, tmp_path)
    tumour, core = run.train.read(np.arange(run.train.size)).condition.unbind(1)
    assert set(tumour.unique().tolist()) == {-1.0, 1.0}
    assert bool((core <= tumour).all())
    assert 0 < (core > 0).sum() < (tumour > 0).sum()
    run.train.close()


def test_pooled_images_are_samples_of_one_channel(tiny, tmp_path):
    overrides = [
        'mode.images.images=["bravo","flair"]',
        "mode.images.pooled=true",
        "training.steps=1",
    ]
    run = assemble(load("bravo_rflow", [*tiny, *overrides]), tmp_path)
    both = run.store.read(run.train.rows[:1], ("bravo", "flair"))[0]
    batch = run.train.read(np.array([0, 1]))
    assert run.train.size == 2 * len(run.train.rows)
    assert batch.image.shape[1] == 1
    assert np.array_equal(batch.image[:, 0].numpy(), both)
    assert batch.condition.shape[1] == 0
    run.train.close()


def test_the_initial_weights_depend_on_the_seed_alone(tiny, tmp_path):
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)
        run = assemble(
            load("bravo_rflow", [*tiny, "training.steps=1", f"run.seed={seed}"]), tmp_path
        )
        weights.append(next(iter(run.network.parameters())).detach().clone())
        run.train.close()
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_channels_last_follows_the_rule_and_can_be_set(tiny, tmp_path):
    cases = {
        ("[128,128]", "bf16", "auto"): True,
        ("[128,128]", "fp32", "auto"): False,
        ("[8,16]", "bf16", "auto"): False,
    }
    cases |= {("[8,16]", "fp32", "channels_last"): True, ("[128,128]", "bf16", "contiguous"): False}
    for (channels, precision, how), expected in cases.items():
        overrides = (
            f"network.unet.channels={channels}",
            f"training.precision={precision}",
            f"training.memory_format={how}",
        )
        run = assemble(load("bravo_rflow", [*tiny, *overrides, "training.steps=1"]), tmp_path)
        assert run.channels_last is expected
        run.train.close()
