"""What a network is given and what is made of its output where it predicts the residual.

Covers: medgen_builtins.strategies._preconditioning.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import RECIPES
from medgen_builtins.strategies import _preconditioning
from medgen_builtins.strategies.rflow import Rflow

from medgen.api.values import Draws
from medgen.config.recipe import load
from medgen.errors import RecipeError

MEAN, DEVIATION = torch.tensor([-7.0, 0.0, 0.4]), torch.tensor([2.8, 0.1, 0.02])
TIMES = [0.0, 1.0, 60.0, 300.0, 700.0, 990.0, 1000.0]


def strategy():
    made = Rflow(prediction="residual", t_min=0.01).build()
    made.space = SimpleNamespace(moments=(MEAN, DEVIATION))
    return made


def corrupted(time: float):
    """40,000 values of each channel, clean and at one time, and the strategy."""
    generator = torch.Generator().manual_seed(0)
    normal, noise = torch.randn(2, 4, 3, 100, 100, generator=generator)
    x0 = MEAN.view(3, 1, 1) + DEVIATION.view(3, 1, 1) * normal
    made = strategy()
    return x0, made.corrupt(x0, Draws(torch.full((4,), time), noise)), made


def spread(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1).flatten(1).std(1)


@pytest.mark.parametrize("time", TIMES)
def test_the_network_sees_channels_of_mean_0_and_variance_1(time):
    _, noisy, made = corrupted(time)
    seen = made.network_input(noisy.x, noisy.t)
    assert torch.allclose(spread(seen), torch.ones(3), atol=0.02)
    assert seen.mean((0, 2, 3)).abs().max() < 0.03


def output(x0: torch.Tensor, added: float = 0.0, change: float = 0.0) -> torch.Tensor:
    """What a network puts out that says the same everywhere. change: of the logarithm of the variance."""
    return torch.cat(
        [torch.full_like(x0, added), torch.full_like(x0, change / _preconditioning.RATE)], 1
    )


@pytest.mark.parametrize("time", TIMES[1:])
def test_the_network_has_to_put_out_variance_1(time):
    """What would be a perfect output has a variance of 1 in every channel, whatever the noise."""
    x0, noisy, made = corrupted(time)
    guess = made.read(output(x0), noisy.x, noisy.t).x0
    one = made.read(output(x0, added=1.0), noisy.x, noisy.t).x0 - guess
    assert torch.allclose(spread((x0 - guess) / one), torch.ones(3), atol=0.03)


@pytest.mark.parametrize("change", [-2.0, 0.0, 1.0])
@pytest.mark.parametrize("time", TIMES)
def test_the_guess_of_a_narrow_channel_is_the_best_that_is_linear(time, change):
    """Of a Gaussian, E[x0 | xt] = m + alpha s^2 (xt - alpha m) / (alpha^2 s^2 + sigma^2)."""
    x0, noisy, made = corrupted(time)
    guess = made.read(output(x0, change=change), noisy.x, noisy.t).x0[:, 2] - MEAN[2]
    sigma, variance = time / 1000, DEVIATION[2] ** 2 * math.exp(change)
    best = (1 - sigma) * variance / ((1 - sigma) ** 2 * variance + sigma**2)
    assert torch.allclose(
        guess, best * (noisy.x[:, 2] - (1 - sigma) * MEAN[2]), rtol=2e-2, atol=1e-5
    )


def test_of_a_wide_channel_less_noise_is_taken_over():
    """A wide one is much the same over many blocks, so that the network does better than a guess."""
    x0, noisy, made = corrupted(500.0)
    for change in (0.0, 100.0):
        guess = made.read(output(x0, change=change), noisy.x, noisy.t).x0[:, 0]
        assert (guess - guess.mean()).std() < 0.3


def test_where_a_channel_is_flat_no_noise_is_taken_over():
    """As in air, of which the network says so."""
    x0, noisy, made = corrupted(100.0)
    usual = made.read(output(x0), noisy.x, noisy.t).x0[:, 1]
    flat = made.read(output(x0, change=-8.0), noisy.x, noisy.t).x0[:, 1]
    assert flat.std() < 0.01 * usual.std()


def test_without_noise_nothing_is_asked_of_the_network():
    x0, noisy, made = corrupted(0.0)
    read = made.read(torch.randn(4, 6, 100, 100), noisy.x, noisy.t)
    assert torch.allclose(read.x0, x0, atol=1e-5)
    assert torch.isfinite(read.target).all()


@pytest.mark.parametrize("time", TIMES)
def test_a_mean_that_follows_from_what_is_given_is_taken_from_each_sample(time):
    """As if every sample had been moved by the difference of its mean from that of all."""
    x0, noisy, made = corrupted(time)
    moved = torch.randn(4, 3, 100, 100)
    own = MEAN.view(3, 1, 1) + moved
    made.space.moments_given = lambda given: (own, DEVIATION)
    other = noisy.x + (1 - time / 1000) * moved
    given = torch.zeros(4, 1, 100, 100)
    seen = made.network_input(other, noisy.t, given)
    assert torch.allclose(seen, made.network_input(noisy.x, noisy.t), atol=1e-3)
    read = made.read(output(x0, added=0.5), other, noisy.t, given).x0
    assert torch.allclose(
        read - moved, made.read(output(x0, added=0.5), noisy.x, noisy.t).x0, atol=1e-4
    )


def test_other_predictions_see_xt_as_it_is():
    xt = torch.randn(2, 3, 4, 4)
    for prediction in ("x0", "velocity"):
        made = Rflow(prediction=prediction).build()
        assert made.network_input(xt, torch.full((2,), 500.0)) is xt


def test_a_space_that_measures_no_channels_is_refused():
    told = 'strategy.rflow.prediction: got "residual", which needs the spread of channels, and space.pixel'
    with pytest.raises(RecipeError, match=told):
        load(RECIPES / "bravo_rflow.toml", ("strategy.rflow.prediction=residual",))
    load(RECIPES / "bravo_rflow.toml", ("strategy.rflow.prediction=residual", "space=wavelet"))
    load(RECIPES / "bravo_rflow_latent.toml", ("strategy.rflow.prediction=residual",))


def test_half_precision_is_read_in_fp32():
    moments = MEAN, DEVIATION
    xt, half = torch.randn(1, 3, 2, 2), torch.full((1, 1, 1, 1), 0.5)
    assert _preconditioning.network_input(xt, half, half, moments).dtype == torch.float32
