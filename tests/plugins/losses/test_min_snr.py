"""Min-SNR weights against their closed forms (Hang et al. 2023, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from medgen_builtins.losses.min_snr import MinSnr
from medgen_builtins.strategies.ddpm import Ddpm
from medgen_builtins.strategies.rflow import Rflow
from torch import Tensor

from medgen.api.values import Draws, Prediction

TIMES = [1.0, 50.0, 200.0, 400.0, 600.0, 900.0, 1000.0]
GAMMA = 5.0


def weights(strategy: Any) -> Tensor:
    """What the loss makes of a target that is off by 1 everywhere, at each of the times."""
    x0, noise = torch.randn(2, len(TIMES), 1, 4, 4, generator=torch.Generator().manual_seed(0))
    noisy = strategy.corrupt(x0, Draws(torch.tensor(TIMES), noise))
    return MinSnr(gamma=GAMMA).build(torch.device("cpu"))(
        Prediction(noisy.target + 1, noisy.x0), noisy
    )


CLOSED: dict[str, Callable[[float], float]] = {
    "epsilon": lambda snr: min(snr, GAMMA) / snr,
    "x0": lambda snr: min(snr, GAMMA),
    "velocity": lambda snr: min(snr, GAMMA) / (snr + 1),
}


@pytest.mark.parametrize("prediction", CLOSED)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ddpm_weights(schedule: Any, prediction: Any) -> None:
    """min(snr, gamma) times 1/snr for epsilon, 1 for x0 and 1/(snr + 1) for the velocity."""
    strategy = Ddpm(schedule=schedule, prediction=prediction).build()
    snr = [(alpha / sigma) ** 2 for alpha, sigma in map(strategy.level, TIMES)]
    expected = torch.tensor([CLOSED[prediction](each) for each in snr])
    assert torch.allclose(weights(strategy), expected, rtol=1e-4)


def test_rflow_weights() -> None:
    """min(snr, gamma) times t^2 for the velocity of rectified flow, where snr = ((1 - t)/t)^2."""
    expected = [min(((1 - t) / t) ** 2, GAMMA) * t**2 for t in (each / 1000 for each in TIMES)]
    assert torch.allclose(weights(Rflow().build()), torch.tensor(expected), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    "strategy",
    [
        Ddpm(prediction="epsilon"),
        Ddpm(prediction="x0"),
        Ddpm(prediction="velocity"),
        Rflow(),
        Rflow(prediction="x0"),
    ],
    ids=["epsilon", "x0", "velocity", "rflow", "rflow_x0"],
)
def test_the_loss_is_that_of_x0(strategy: Any) -> None:
    """For every target the loss is min(snr, gamma) times the squared error of x0."""
    live = strategy.build()
    x0, noise, error = torch.randn(
        3, len(TIMES), 1, 4, 4, generator=torch.Generator().manual_seed(0)
    )
    noisy = live.corrupt(x0, Draws(torch.tensor(TIMES), noise))
    output = x0 if live.prediction == "x0" else noisy.target
    read = live.read(output + error, noisy.x, noisy.t)
    loss = MinSnr(gamma=GAMMA).build(torch.device("cpu"))(read, noisy)
    expected = noisy.snr.clamp(max=GAMMA) * (read.x0 - x0).square().mean((1, 2, 3))
    assert torch.allclose(loss, expected, rtol=2e-3, atol=1e-6)
