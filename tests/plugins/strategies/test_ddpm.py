"""DDPM's forward process and how a network's output is read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from medgen_builtins.strategies._ddpm import DdpmStrategy
from medgen_builtins.strategies.ddpm import Ddpm
from torch import Tensor

from medgen.api.values import Draws

TARGETS = ["epsilon", "x0", "velocity"]
SCHEDULES = ["linear", "cosine"]


def samples(t: list[float]) -> tuple[Tensor, Draws]:
    """One sample of two channels for each t."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, len(t), 2, 4, 4, generator=generator)
    return x0 * 0.3, Draws(torch.tensor(t, dtype=torch.float32), noise)


def by_target(prediction: str, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return {"epsilon": noise, "x0": x0, "velocity": alpha * noise - sigma * x0}[prediction]


def alpha_sigma(strategy: DdpmStrategy, t: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = torch.tensor([strategy.level(each) for each in t.tolist()]).unbind(1)
    return alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)


def test_linear_alpha_bar() -> None:
    """alpha_bar is the product of 1 - beta, with beta rising evenly from 1e-4 to 0.02 (Ho et al. 2020)."""
    strategy = Ddpm(schedule="linear").build()
    alpha_bar = 1.0
    for k in range(1000):
        alpha_bar *= 1 - (1e-4 + (0.02 - 1e-4) * k / 999)
        assert strategy.level(k + 1) == pytest.approx(
            (math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)), rel=1e-9
        )


def test_cosine_alpha_bar() -> None:
    """alpha_bar is f(t)/f(0) up to the last timestep, whose beta is cut to 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
    strategy = Ddpm(schedule="cosine").build()

    def f(k: int) -> float:
        return math.cos((k / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    for k in range(1000):
        assert strategy.level(k)[0] ** 2 == pytest.approx(f(k) / f(0), rel=1e-9)
    assert strategy.level(1000)[0] ** 2 == pytest.approx(f(999) / f(0) * 0.001, rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_shorter_schedules_end_as_noisy(schedule: Any) -> None:
    """A schedule of 100 timesteps runs over the same times and reaches about the same noise as one of 1000."""
    short, long = Ddpm(schedule=schedule, timesteps=100).build(), Ddpm(schedule=schedule).build()
    assert short.level(500) == pytest.approx(long.level(500), rel=0.05)
    assert short.level(1000)[0] < 0.01


@pytest.mark.parametrize("prediction", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_forward_process(schedule: Any, prediction: Any) -> None:
    """x is alpha x0 + sigma epsilon, the target is the one that was asked for, and the SNR is alpha^2/sigma^2."""
    strategy = Ddpm(schedule=schedule, prediction=prediction).build()
    x0, draws = samples([1, 2, 250, 500, 999, 1000])
    noisy = strategy.corrupt(x0, draws)
    alpha, sigma = alpha_sigma(strategy, draws.t)
    assert torch.allclose(noisy.x, alpha * x0 + sigma * draws.noise, atol=1e-6)
    assert torch.allclose(
        noisy.target, by_target(prediction, x0, draws.noise, alpha, sigma), atol=1e-6
    )
    assert torch.allclose(noisy.snr, ((alpha / sigma) ** 2).flatten(), rtol=1e-5)
    assert torch.equal(noisy.t, draws.t)
    assert torch.equal(noisy.x0, x0)


@pytest.mark.parametrize("prediction", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_exact_output_is_read_exactly(schedule: Any, prediction: Any) -> None:
    """A network that puts out the target gets the target back, and x0, from 1 to 1000."""
    strategy = Ddpm(schedule=schedule, prediction=prediction).build()
    x0, draws = samples([1, 2, 250, 500, 900, 990])
    noisy = strategy.corrupt(x0, draws)
    read = strategy.read(noisy.target, noisy.x, noisy.t)
    assert torch.equal(read.target, noisy.target)
    assert torch.allclose(read.x0, x0, atol=1e-4)


@pytest.mark.parametrize("prediction", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gain_is_the_slope_of_x0(schedule: Any, prediction: Any) -> None:
    """gain is (dx0/dtarget)^2, as measured on what `read` does."""
    strategy = Ddpm(schedule=schedule, prediction=prediction).build()
    x0, draws = samples([1, 30, 250, 500, 900])
    noisy = strategy.corrupt(x0, draws)
    output = noisy.target.clone().requires_grad_()
    (slope,) = torch.autograd.grad(strategy.read(output, noisy.x, noisy.t).x0.sum(), output)
    assert torch.allclose(noisy.gain.view(-1, 1, 1, 1).expand_as(slope), slope**2, rtol=1e-4)


@pytest.mark.parametrize("prediction", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_finite_at_both_ends(schedule: Any, prediction: Any) -> None:
    """Nothing is infinite at t = 0 and t = 1000, for any output."""
    strategy = Ddpm(schedule=schedule, prediction=prediction).build()
    x0, draws = samples([0, 1000])
    noisy = strategy.corrupt(x0, draws)
    read = strategy.read(torch.randn_like(x0), noisy.x, noisy.t)
    assert all(torch.isfinite(each).all() for each in (*noisy, *read))


def test_draws() -> None:
    """Timesteps are even over 1 to 1000, noise is standard normal, and the generator alone decides them."""
    strategy = Ddpm().build()
    draws = strategy.draw(torch.Generator().manual_seed(3), 20_000, (1, 2, 2))
    again = strategy.draw(torch.Generator().manual_seed(3), 20_000, (1, 2, 2))
    assert torch.equal(draws.t, again.t)
    assert torch.equal(draws.noise, again.noise)
    assert (draws.t.min(), draws.t.max(), draws.t.dtype) == (1, 1000, torch.float32)
    assert draws.t.unique().numel() == 1000
    assert draws.t.mean().item() == pytest.approx(500.5, abs=8)
    assert draws.noise.shape == (20_000, 1, 2, 2)
    assert draws.noise.std().item() == pytest.approx(1, abs=0.02)


def test_half_precision_is_read_in_fp32() -> None:
    """Samples stored in fp16 and outputs in bf16 give losses their fp32."""
    strategy = Ddpm().build()
    x0, draws = samples([300, 700])
    noisy = strategy.corrupt(x0.half(), draws)
    read = strategy.read(noisy.target.bfloat16(), noisy.x, noisy.t)
    assert {each.dtype for each in (*noisy, *read)} == {torch.float32}


@pytest.mark.parametrize("prediction", TARGETS)
def test_compiles_as_one_graph(prediction: Any) -> None:
    """`corrupt` and `read` trace without a break, once for all times, and give the same as without compiling."""
    from torch._dynamo.testing import CompileCounter

    strategy = Ddpm(prediction=prediction).build()

    def step(x0: Tensor, draws: Draws) -> Tensor:
        noisy = strategy.corrupt(x0, draws)
        return strategy.read(noisy.target, noisy.x, noisy.t).x0 + (noisy.snr * noisy.gain).view(
            -1, 1, 1, 1
        )

    counter = CompileCounter()
    compiled = torch.compile(step, fullgraph=True, backend=counter)
    for t in ([3.0, 400.0], [900.0, 1000.0]):
        x0, draws = samples(t)
        assert torch.equal(compiled(x0, draws), step(x0, draws))
    assert counter.frame_count == 1
