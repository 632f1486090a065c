"""The recipes that the README shows, as they stand; and those that others extend, each with what only it lacks."""

from __future__ import annotations

import re
import shlex
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


def for_a_cpu() -> list[list[str]]:
    """The arguments of the commands that the README gives for a CPU."""
    paragraph = re.search(r"On a CPU, or with few patients, .*?```sh\n(.*?)```", README, re.S)
    assert paragraph, "the README says nothing of CPUs"
    return [shlex.split(line, comments=True) for line in paragraph[1].splitlines()]


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


def test_the_recipe_of_the_readme_is_trained(folder, medgen):
    """Point 29: as it stands, but for its length and the width of the network."""
    (folder / "my.toml").write_text(shown())
    given = f"network.unet.channels={[8] * len(load('my.toml').network.channels)}"
    result = medgen("train", "my.toml", *SMALL, given, "callbacks.previews=false", "run.dir=run")
    assert result.code == 0, result.err
    assert (folder / "run/latest.pt").exists()


def test_what_the_readme_gives_for_a_cpu_ends_with_a_model(folder, medgen):
    """As it stands, but for its length and the size of the slices."""
    tissue, train = for_a_cpu()
    assert not medgen(*tissue[1:]).code
    assert len([*(folder / "cohort").rglob("tissue.nii.gz")]) == len(
        [*(folder / "scans").iterdir()]
    )
    small = (*SMALL, "data.image_size=32", "callbacks.previews=false", "run.dir=run")
    result = medgen(*train[1:], *small)
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
