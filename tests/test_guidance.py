"""Classifier-free guidance by the mask.

Covers: medgen.training.sampling, medgen_builtins.strategies._guidance.
"""

from __future__ import annotations

import pytest
import torch
from medgen_builtins.spaces.pixel import Pixel
from medgen_builtins.strategies.ddpm import Ddpm
from medgen_builtins.strategies.rflow import Rflow
from torch import nn

from medgen.api.settings import fields
from medgen.api.values import Mode, Prediction
from medgen.config.recipe import load
from medgen.errors import RecipeError
from medgen.training import sampling


def test_guidance_takes_the_prediction_further_from_that_for_an_empty_mask():
    """Ho and Salimans 2022, equation 6: (1 + w) of one less w of the other."""
    one, other = torch.full((2, 1, 4, 4), 0.5), torch.full((2, 1, 4, 4), 0.2)
    seen = []

    def without(xt, t):
        seen.append((xt, t))
        return Prediction(other, other)

    predict = sampling.guided(lambda xt, t: Prediction(one, one), without, torch.tensor(2.0))
    xt = torch.zeros_like(one)
    made = predict(xt, 300.0)
    assert torch.allclose(made.x0, 3 * one - 2 * other)
    assert torch.equal(made.target, one)
    assert [(each is xt, t) for each, t in seen] == [(True, 300.0)]


def test_the_diffusion_strategies_have_one_setting_of_the_same_words():
    one, other = (
        next(each for each in fields(strategy) if each.name == "guidance")
        for strategy in (Rflow, Ddpm)
    )
    assert one == other
    assert (one.default, one.expected) == (0.0, "a number of at least 0")
    assert "twice the time per step" in one.help


@pytest.mark.parametrize("axes", [2, 3])
def test_guidance_is_limited_to_lesions_and_what_is_next_to_them(axes):
    masks = torch.full((1, 2, *(16,) * axes), -1.0)
    masks[(0, 1, *(5,) * axes)] = 1.0
    where = sampling.around(masks, (4,) * axes)  # a grid of 4 x 4 px
    assert where.shape == (1, 1, *(4,) * axes)
    expected = torch.zeros((4,) * axes)
    expected[(slice(0, 3),) * axes] = 1
    assert torch.equal(where[0, 0], expected)


@pytest.mark.parametrize("masks", [[0], None])
def test_images_that_are_given_do_not_guide(masks):
    """A sample whose mask is empty is what it is without guidance, however bright the image is."""
    strategy = Rflow(guidance=3.0, sampling_steps=2).build()
    mode = Mode(images=("bravo",), condition=("seg", "tissue"))
    strategy.space = space = Pixel().build(mode, torch.device("cpu"))
    network = nn.Conv2d(3, 1, 3, padding=1)
    condition = torch.stack([torch.full((1, 8, 8), -1.0), torch.rand(1, 8, 8)], dim=1)
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def sampled(weight: float) -> torch.Tensor:
        return sampling.sample(
            strategy, space, lambda x, t: network(x), condition, lambda: noise.clone(),
            guidance=weight, masks=masks,
        )  # fmt: skip

    assert torch.equal(sampled(0.0), sampled(3.0)) == (masks == [0])


@pytest.mark.parametrize(
    ("recipe", "mode"),
    [("seg_rflow", "seg"), ("insert_rflow", "insert"), ("joint_rflow", "images")],
)
def test_guidance_of_a_model_that_makes_no_whole_image_of_a_mask_is_refused(recipe, mode):
    with pytest.raises(RecipeError) as raised:
        load(recipe, ["strategy.rflow.guidance=1"])
    said = f"strategy.rflow.guidance: got 1, but mode.{mode} makes no whole image of a mask"
    assert said in raised.value.lines[0]
    of_another = ["mode=images", 'mode.images.images=["bravo"]', 'mode.images.condition=["flair"]']
    with pytest.raises(RecipeError, match="makes no whole image of a mask"):
        load("bravo_rflow", [*of_another, "strategy.rflow.guidance=1"])
    load("bravo_rflow", ["strategy.rflow.guidance=1"])
