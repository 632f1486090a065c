"""The control of obedience is the same pairs' noise without their masks, made by the model that made them."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
from data.cohort import write_cohort
from evaluation.test_samples import write_pairs
from medgen_builtins.segmenters.small_unet import SmallUnet

from medgen.cli._evaluate import _with_control
from medgen.errors import RecipeError
from medgen.evaluation import evaluate as work
from medgen.evaluation import obedience, two_sample
from medgen.evaluation.comparison import Comparison
from medgen.evaluation.pair_samples import read_pairs
from medgen.generation import control, pair_writer
from medgen.generation.masks import Masks
from medgen.generation.model import load_model


class NoMasks:
    """Gives empty masks."""

    names, numbers = ("seg",), None

    def __init__(self, grid):
        self.grid = grid

    def block(self, indices):
        return Masks(torch.full((len(indices), 1, 16, 16), -1.0), [[""] for _ in indices])

    def identity(self):
        return {}


@pytest.fixture(scope="module")
def made(trained, cohort, tmp_path_factory):
    """Six pairs of masks of real patients."""
    from medgen.cli.main import main

    out = tmp_path_factory.mktemp("control") / "pairs"
    models = ("--seg-model", cohort, "--image-model", trained / "bravo", "--output-dir", out)
    options = ("--num-images", 6, "--batch-size", 4, "--steps", 2, "--inside", "off", "--no-audit")
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in ("generate", *models, *options)])
    assert not ended.value.code
    return out


@pytest.fixture(scope="module")
def model(trained):
    return load_model(trained / "bravo/latest.pt")


def test_images_of_the_control_are_what_generate_makes_of_empty_masks(made, model):
    there = read_pairs(made)
    found = control.without_mask(there, made, model, most=6)
    make = pair_writer.Generator(model, NoMasks(model.grid), seed=0, steps=2, batch_size=4)
    expected = [pair.channels["bravo"] for number in range(2) for pair in make.block(number)][:6]
    assert (found.images[:, 0] == np.stack(expected)).all()
    assert (found.images != there.images).any((1, 2, 3)).all()
    assert (found.masks == there.masks).all()
    assert found.names == there.names


def test_a_pair_whose_image_was_drawn_again_has_the_noise_that_it_was_drawn_of_last(
    made, model, monkeypatch, tmp_path
):
    text = (made / "manifest.jsonl").read_text().splitlines()
    text[2] = json.dumps({**json.loads(text[2]), "drawn_again": 2})
    (tmp_path / "manifest.jsonl").write_text("\n".join([*text, ""]))
    streams = []
    monkeypatch.setattr(
        control.seeds, "stream", lambda *index: streams.append(index) or torch.Generator()
    )
    found = control.without_mask(read_pairs(made), tmp_path, model, most=3)
    assert streams == [(0, "image", 0, 1), (0, "image", 1, 3), (0, "image", 2, 1)]
    assert found.names == ("syn_00000", "syn_00001", "syn_00002")


def test_the_model_that_made_the_pairs_is_known_by_its_hash(made, trained, tmp_path):
    latest = trained / "bravo/latest.pt"
    for given, real in (
        (trained / "bravo", "x"),
        (latest, "x"),
        (None, str(latest)),
        (None, str(trained / "bravo")),
    ):
        found = control.checkpoint(made, given, real)
        assert found is not None
        assert found.read_bytes() == latest.read_bytes()
    assert control.checkpoint(made, None, str(trained / "seg")) is None
    assert control.checkpoint(write_pairs(tmp_path), None, str(trained / "bravo")) is None
    with pytest.raises(
        RecipeError, match=r"--image-model: .*latest\.pt has sha256 .*, the pairs were made with"
    ):
        control.checkpoint(made, trained / "seg", str(trained / "bravo"))
    with pytest.raises(RecipeError, match=r"nothing\.pt is not there"):
        control.checkpoint(made, tmp_path / "nothing.pt", "")


def test_the_card_has_the_control_beside_the_ceiling(made, trained, medgen, monkeypatch, tmp_path):
    def quick(settings, real, *, seed):
        return fit(SmallUnet(channels=(4, 4)), real, seed=seed)

    fit = functools.partial(obedience.fit, folds=2, steps=1)
    monkeypatch.setattr(obedience, "fit", quick)
    monkeypatch.setattr(two_sample, "STEPS", 2)
    monkeypatch.setattr(work, "DRAWS", 20)
    scans = write_cohort(tmp_path / "scans", patients=9)
    features = (
        "data.workers=1",
        "features.taught.steps=2",
        "features.taught.batch_size=4",
        "--features",
        "taught",
    )
    by = ("--split", "all", "--output", tmp_path / "card.json", "--image-model", trained / "bravo")
    given = ("evaluate", scans, made, *features, *by)
    done = medgen(*given, "--control", 4)
    assert done.code == 0, done.err
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["made"]["control"] == "4 pairs of the same noise"
    figures = [each["name"] for each in card["figures"] if each["section"] == "obedience"]
    assert figures[:3] == [
        "Dice",
        "Dice with the mask of another (control)",
        "Dice without a mask (control)",
    ]


def test_no_control_is_made_unless_asked_for(made):
    there = read_pairs(made)
    found = _with_control(Comparison(there, there, ()), made, None, 0)
    assert (found.without_mask, found.control) == (None, "not asked for")
