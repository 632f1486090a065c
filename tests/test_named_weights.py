"""Weights that come along: found by name, small, and as good as their card says on heads they have not seen.

Covers: medgen_builtins.weights.brain.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli
import torch
from medgen_builtins.weights.brain import Brain

from medgen.config.recipe import from_toml, load
from medgen.errors import RecipeError
from medgen.run import named_weights, shared_weights
from medgen.run.open import compare_outputs

KEY = "training.init_from"
MOST = 16e6
"""Bytes of all weights together."""


def test_a_name_is_the_file_of_its_purpose():
    for purpose, file in Brain.files.items():
        name, axes = (purpose.removesuffix("_3d"), 3 if purpose.endswith("_3d") else 2)
        assert named_weights.find(Path("brain"), name, KEY, axes) == file


@pytest.mark.parametrize("path", ["brain.pt", "runs/brain", "other"])
def test_any_other_path_stays_as_it_is(path):
    assert named_weights.find(Path(path), "bravo", KEY) == Path(path)


def test_a_purpose_without_weights_is_refused_in_a_line():
    with pytest.raises(
        RecipeError,
        match=r"has weights for autoencoder, bravo, .*, autoencoder_3d, .*, not for dual",
    ):
        named_weights.find(Path("brain"), "dual", KEY)
    with pytest.raises(RecipeError, match=r"has weights for .*, not for insert_3d"):
        named_weights.find(Path("brain"), "insert", KEY, 3)


def test_all_together_are_small_and_say_how_to_build_them():
    assert sum(file.stat().st_size for file in set(Brain.files.values())) <= MOST
    for file in Brain.files.values():
        shared = shared_weights.read(file)
        folders = ("h1600", "/tmp/")  # that they were trained in
        assert not any(each in shared.recipe for each in folders)
        assert all(bool(each.isfinite().all()) for each in shared.weights.values())


def test_the_card_is_beside_them():
    card = (next(iter(Brain.files.values())).parent / "brain.md").read_text()
    assert all(purpose in card for purpose in Brain.files)


def test_heads_survive_the_autoencoder_whatever_their_contrast(medgen, tmp_path):
    """At 128 px, contrasts that it has not seen come back with 32 dB and more inside of the head."""
    assert (
        medgen(
            "data", "demo", tmp_path / "heads", "--patients", 3, "--seed", 5, "--randomised"
        ).code
        == 0
    )
    given = (
        f"data.root={tmp_path / 'heads'}",
        "space.latent.checkpoint=brain",
        "data.min_foreground=0.1",
    )
    done = medgen("latent-audit", "bravo_rflow_latent", *given, "--json", tmp_path / "audit.json")
    assert done.code == 0, done
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert figures["head"]["psnr"] >= 32


@pytest.mark.parametrize(
    ("recipe", "purpose"),
    [("demo_bravo", "bravo"), ("demo_bravo_3d", "bravo_3d"), ("demo_insert", "insert")],
)
def test_the_demo_begins_from_them(recipe, purpose, medgen, tmp_path):
    """A run of one step with no learning to speak of has their weights."""
    medgen("data", "demo", tmp_path / "data", "--patients", 3, "--tissue")
    given = (f"data.root={tmp_path / 'data'}", f"run.dir={tmp_path / 'run'}", "training.steps=1")
    given = (*given, "training.learning_rate=1e-12", "training.batch_size=2", "callbacks.ema=false")
    done = medgen("train", recipe, *given, "callbacks.previews=false", "training.precision=fp32")
    assert done.code == 0, done
    run = shared_weights.load_any(tmp_path / "run" / "latest.pt").weights
    shipped = shared_weights.read(Brain.files[purpose]).weights
    assert run.keys() == shipped.keys()
    assert all(torch.allclose(run[name], shipped[name], atol=1e-6) for name in run)


def test_an_empty_name_takes_back_what_a_recipe_extends(medgen, tmp_path):
    medgen("data", "demo", tmp_path / "data", "--patients", 3, "--tissue")
    given = (f"data.root={tmp_path / 'data'}", f"run.dir={tmp_path / 'run'}", "training.steps=1")
    done = medgen("train", "demo_bravo", *given, "training.init_from=", "callbacks.previews=false")
    assert done.code == 0, done
    run = shared_weights.load_any(tmp_path / "run" / "latest.pt").weights
    shipped = shared_weights.read(Brain.files["bravo"]).weights
    assert not torch.allclose(run["conv_in.conv.weight"], shipped["conv_in.conv.weight"], atol=0.01)


@pytest.mark.parametrize("prediction", ["x0", "velocity"])
def test_weights_that_put_out_something_else_are_told(prediction, capsys):
    recipe = load("demo_bravo", [f"strategy.rflow.prediction={prediction}"])
    for was in ("x0", "velocity"):
        theirs = {"strategy": {"rflow": {"prediction": was}}}
        compare_outputs(recipe, theirs, Path("brain"))
        said = capsys.readouterr().err
        if was == prediction:
            assert said == ""
        else:
            assert f"strategy.rflow.prediction: was {was} for the weights of brain" in said
            assert f"Set strategy.rflow.prediction={was}" in said
    compare_outputs(recipe, {}, Path("other.pt"))
    compare_outputs(recipe, {"strategy": {"ddpm": {"prediction": "epsilon"}}}, Path("other.pt"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("scaling", ["channel", "whole"])
def test_weights_of_latents_of_another_scale_are_told(scaling, capsys):
    recipe = load("bravo_rflow_latent", [f"space.latent.scaling={scaling}"])
    compare_outputs(recipe, {"space": {"latent": {"scaling": "whole"}}}, Path("brain"))
    said = capsys.readouterr().err
    assert (said == "") == (scaling == "whole")
    assert scaling == "whole" or "Set space.latent.scaling=whole" in said


def test_weights_of_a_space_without_the_fit_are_told_as_settings_are_written(capsys):
    recipe = load("demo_bravo", ["space.wavelet.fit_given=true"])
    compare_outputs(recipe, {"space": {"wavelet": {"fit_given": False}}}, Path("brain"))
    said = capsys.readouterr().err
    assert "was false for the weights of brain and is true here" in said
    assert "Set space.wavelet.fit_given=false to go on" in said


def test_every_recipe_that_begins_from_them_has_their_network(capsys):
    begin = []
    for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.toml")):
        recipe = load(path)
        if recipe.training.init_from != Path("brain"):
            continue
        file = named_weights.find(Path("brain"), recipe.names["mode"], KEY, recipe.data.axes)
        text = shared_weights.read(file).recipe
        theirs = from_toml(text)
        assert (recipe.network, recipe.data.axes) == (theirs.network, theirs.data.axes), path
        compare_outputs(recipe, tomli.loads(text), path)
        assert capsys.readouterr().err == ""
        begin.append(path.stem)
    assert begin == ["demo_bravo", "demo_bravo_3d", "demo_insert"]
