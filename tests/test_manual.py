"""The recipes that the README shows, as they stand; and those that others extend, each with what only it lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from medgen.config.recipe import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SMALL = (
    "training.batch_size=4",
    "training.val_batches=1",
    "training.steps=1",
    "training.compile=false",
)
LACKING = {
    "common": "[data]\nroot = '.'\n[training]\nsteps = 1\n[mode.bravo]\n[strategy.rflow]\n[space.pixel]\n"
    "[network.unet]\n[losses.mse]\n",
    "diffusion": "[mode.bravo]\n[strategy.rflow]\n[losses.mse]\n",
    "demo": "[mode.bravo]\n",
    "vae": "[mode.bravo]\n",
}
"""What a recipe adds to each file of `base`."""


def shown() -> str:
    """The recipe `my.toml`."""
    [recipe] = re.findall(r"```toml\n(# my\.toml\n.*?)```", README, re.S)
    return recipe


def for_a_cpu() -> str:
    """The same with what the README says of a CPU, word for word."""
    paragraph = re.search(r"On a CPU, or with few patients, .*?\n\n", README, re.S)
    assert paragraph, "the README says nothing of CPUs"
    extends, *given = re.findall(r"`([a-z_.]+ = [^`]+)`", paragraph[0])
    data = [each.removeprefix("data.") for each in given if each.startswith("data.")]
    training = [each for each in given if not each.startswith("data.")]
    assert extends.startswith("extends")
    assert data
    assert training
    recipe = re.sub(r"^extends = .*$", extends, shown(), flags=re.M)
    return recipe.replace("[data]\n", "\n".join(["[data]", *data, ""])) + "\n".join(
        ["[training]", *training, ""]
    )


@pytest.fixture
def folder(tmp_path, cohort, monkeypatch):
    """The folder that the README is read in: `scans` are of the names that its recipe gives."""
    for patient in cohort.iterdir():
        there = tmp_path / "scans" / patient.name
        there.mkdir(parents=True)
        (there / "T1c_1.nii.gz").symlink_to(patient / "bravo.nii.gz")
        (there / "OTMultiClass.nii.gz").symlink_to(patient / "seg.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("text", [shown(), for_a_cpu()], ids=["shown", "for a CPU"])
def test_the_recipe_of_the_readme_is_trained(text, folder, medgen):
    """Point 29: as it stands, but for its length and the width of a network that begins from nothing."""
    (folder / "my.toml").write_text(text)
    recipe = load("my.toml")
    given = f"network.unet.channels={[8] * len(recipe.network.channels)}"
    if recipe.training.init_from is not None:
        given = "data.image_size=32"
    result = medgen("train", "my.toml", *SMALL, given, "callbacks.previews=false", "run.dir=run")
    assert result.code == 0, result.err
    assert (folder / "run/latest.pt").exists()


def test_every_file_of_base_is_known_here():
    assert sorted(path.stem for path in (ROOT / "recipes/base").glob("*.toml")) == sorted(LACKING)


@pytest.mark.parametrize("name", LACKING)
def test_every_file_of_base_works_alone(name, tmp_path):
    """Point 29: with the tables that it leaves to others, and no setting of those that it has."""
    (tmp_path / "mine.toml").write_text(f'extends = "base/{name}.toml"\n{LACKING[name]}')
    recipe = load(tmp_path / "mine.toml")
    with torch.device("meta"):
        assert recipe.network.build(4, 4) is not None
