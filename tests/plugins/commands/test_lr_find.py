"""`medgen lr-find`: a folder with a picture and numbers, a line to paste, and no run.

Covers: medgen_builtins.commands.lr_find.
"""

import json

import pytest
from PIL import Image

from medgen.config.recipe import load


@pytest.fixture
def find(medgen, tiny, tmp_path):
    """`find(*options)`: the command's result, and the folder that its last line names."""

    def run(*options):
        result = medgen("lr-find", "bravo_rflow", *tiny, f"run.root={tmp_path}", *options)
        return result, tmp_path / result.out.splitlines()[-1] if result.out else None

    return run


def test_a_suggestion_can_be_pasted_and_only_the_picture_and_the_numbers_are_left(
    find, tmp_path, tiny
):
    result, folder = find("--min-lr", "1e-5", "--max-lr", "1", "--steps", "30")
    assert result.code == 0, result.err
    assert folder.parent == tmp_path / "lr_finder/diffusion_2d"
    assert folder.name.startswith("bravo_16_")
    assert {each for each in tmp_path.rglob("*") if each.is_file()} == {
        folder / "lr_finder.png",
        folder / "lr_finder.json",
    }
    assert Image.open(folder / "lr_finder.png").size == (960, 600)
    about = json.loads((folder / "lr_finder.json").read_text())
    paste = result.out.splitlines()[-2]
    assert paste == about["override"]
    rate = load("bravo_rflow", [*tiny, paste]).training.learning_rate
    assert rate == pytest.approx(about["suggestion"], rel=0.05)
    assert 1e-5 < about["suggestion"] <= about["bound"] < 1
    assert about["settings"]["steps"] == 30
    assert len(about["curve"]["loss"]) == len(about["curve"]["learning_rate"]) <= 30


def test_it_says_so_when_nothing_was_learnt(find):
    result, folder = find("--min-lr", "1e-9", "--max-lr", "1e-7", "--steps", "10")
    assert result.code == 0
    assert "learning rate: inconclusive, the loss stayed at" in result.out
    assert "training.learning_rate=" not in result.out
    assert json.loads((folder / "lr_finder.json").read_text())["suggestion"] is None


def test_the_recipe_says_how_to_sweep_unless_the_command_does(find):
    _, folder = find("callbacks.lr_find.steps=30", "callbacks.lr_find.max_lr=1e-3", "--steps", "11")
    settings = json.loads((folder / "lr_finder.json").read_text())["settings"]
    assert (settings["steps"], settings["max_lr"], settings["min_lr"]) == (11, 1e-3, 1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("--min-lr", "1e-2", "--max-lr", "1e-3"),
            "--max-lr: got 0.001, expected more than min_lr = 0.01",
        ),
        (("--steps", "2"), "--steps: got 2, expected an integer from 10 to 1000000"),
        (("--min-lr", "0"), "--min-lr: got 0.0, expected a number greater than 0"),
    ],
)
def test_a_sweep_that_cannot_be_is_a_mistake_of_the_command(find, tmp_path, options, says):
    result, _ = find(*options)
    assert result.code == 2
    assert says in result.err
    assert not list(tmp_path.iterdir())
