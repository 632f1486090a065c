"""Samplers against distributions whose exact denoiser and exact flow are known.

Covers: medgen_builtins.strategies._diffusion, medgen_builtins.strategies._schedules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from medgen_builtins.spaces.space_to_depth import SpaceToDepth
from medgen_builtins.strategies import _samplers, _schedules
from medgen_builtins.strategies._rflow import RflowStrategy
from medgen_builtins.strategies.ddpm import Ddpm
from medgen_builtins.strategies.rflow import Rflow
from torch import Tensor

from medgen.api.values import Draws, Mode, Predict, Prediction

SD = 0.15
STEPS = [10, 25, 50, 1000]
# How far the standard deviation of the samples may be off. First-order methods lose at least 1.23/steps of it (Euler's
# local error, summed over the best possible steps), which is 0.0185 at 10 steps and 0.0074 at 25.
WITHIN = 0.005
FIRST_ORDER = {10: 0.023, 25: 0.0095}
ANCESTRAL = {10: 0.039, 25: 0.018, 50: 0.0105}


def levels(strategy: Any, t: float) -> tuple[float, float]:
    level: tuple[float, float] = strategy.level(t)
    return level


def exact(strategy: Any, sd: float = SD, mean: Tensor | float = 0.0) -> Predict:
    """The exact denoiser of a Gaussian, as a network that puts out whatever the strategy wants."""

    def predict(xt: Tensor, t: float) -> Prediction:
        alpha, sigma = levels(strategy, t)
        x0 = mean + alpha * sd**2 / (alpha**2 * sd**2 + sigma**2) * (xt - alpha * mean)
        noise = (xt - alpha * x0) / sigma
        velocity = x0 - noise if isinstance(strategy, RflowStrategy) else alpha * noise - sigma * x0
        output = {"epsilon": noise, "x0": x0, "velocity": velocity}[strategy.prediction]
        return strategy.read(output, xt, torch.full((len(xt),), t))

    return predict


def normal_numbers(count: int) -> Tensor:
    """`[count, 1]`: quantiles of the standard normal distribution, scaled to a standard deviation of 1."""
    numbers = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    return (numbers / numbers.std(correction=0)).float()[:, None]


def shuffled(numbers: Tensor) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda: numbers[torch.randperm(len(numbers), generator=generator)]


def sampled_sd(strategy: Any, steps: int, count: int = 1000) -> float:
    noise = normal_numbers(count)
    return strategy.sample(exact(strategy), noise, steps, shuffled(noise)).std(correction=0).item()


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", ["epsilon", "x0", "velocity"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver"])
def test_ddpm_samples_a_gaussian(sampler: Any, schedule: Any, prediction: Any, steps: int) -> None:
    """DDIM and DPM-Solver++ keep the standard deviation at any number of steps, whatever the network predicts."""
    strategy = Ddpm(sampler=sampler, schedule=schedule, prediction=prediction).build()
    bounds = FIRST_ORDER if sampler == "ddim" else {}
    assert sampled_sd(strategy, steps) == pytest.approx(SD, abs=bounds.get(steps, WITHIN))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ancestral_samples_a_gaussian(schedule: Any, steps: int) -> None:
    """Ancestral sampling is right at all 1000 steps, and strided loses no more than its order allows."""
    strategy = Ddpm(sampler="ancestral", schedule=schedule).build()
    assert sampled_sd(strategy, steps, 20_000) == pytest.approx(
        SD, abs=ANCESTRAL.get(steps, WITHIN)
    )


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "velocity"])
def test_ancestral_samples_a_gaussian_for_each_target(prediction: Any) -> None:
    """Ancestral sampling reads every target."""
    strategy = Ddpm(sampler="ancestral", prediction=prediction).build()
    assert sampled_sd(strategy, 50, 20_000) == pytest.approx(SD, abs=ANCESTRAL[50])


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", ["x0", "velocity"])
@pytest.mark.parametrize("sampler", ["dpm_solver", "euler", "heun"])
def test_rflow_samples_a_gaussian(sampler: Any, prediction: Any, steps: int) -> None:
    """All keep the standard deviation at any number of steps, whatever the network predicts."""
    strategy = Rflow(sampler=sampler, prediction=prediction).build()
    bounds = FIRST_ORDER if sampler == "euler" else {}
    assert sampled_sd(strategy, steps) == pytest.approx(SD, abs=bounds.get(steps, WITHIN))


@pytest.mark.parametrize(
    "strategy",
    [
        Ddpm(sampler="ddim"),
        Ddpm(sampler="dpm_solver"),
        Ddpm(sampler="ancestral"),
        Rflow(sampler="euler"),
        Rflow(sampler="heun"),
        Rflow(sampler="dpm_solver"),
    ],
    ids=["ddim", "dpm_solver", "ancestral", "euler", "heun", "rflow_dpm_solver"],
)
def test_through_space_to_depth(strategy: Any) -> None:
    """Images come back in their own places, with their standard deviation, when sampled in a folded space."""
    space = SpaceToDepth().build(Mode(images=("t1_pre", "t1_gd")), torch.device("cpu"))
    live = strategy.build()
    mean = torch.linspace(-0.8, 0.8, 2 * 6 * 8).view(1, 2, 6, 8)
    folded_mean = space.encode(mean, Draws(torch.zeros(1), torch.zeros(1)))
    generator = torch.Generator().manual_seed(0)
    shape = (2000, *space.shape((6, 8)))
    z = live.sample(
        exact(live, mean=folded_mean),
        torch.randn(shape, generator=generator),
        200,
        lambda: torch.randn(shape, generator=generator),
    )
    images = space.decode(z)
    assert images.shape == (2000, 2, 6, 8)
    assert torch.allclose(images.mean(0), mean[0], atol=0.02)
    assert (images - mean).std().item() == pytest.approx(SD, abs=WITHIN)


def mixture(level: _samplers.Level) -> Predict:
    """The exact denoiser of an even mixture of two Gaussians at -0.5 and 0.5, with standard deviation 0.2."""

    def predict(xt: Tensor, t: float) -> Prediction:
        alpha, sigma = level(t)
        variance = (0.2 * alpha) ** 2 + sigma**2
        centre = 0.5 * torch.tanh(alpha * 0.5 * xt / variance)  # the expected centre, given xt
        return Prediction(xt, centre + alpha * 0.2**2 / variance * (xt - alpha * centre))

    return predict


def straight(t: float) -> tuple[float, float]:
    return 1 - t / 1000, t / 1000


def circle(t: float) -> tuple[float, float]:
    return math.cos(math.pi / 2 * t / 1000), math.sin(math.pi / 2 * t / 1000)


def even_times(steps: int) -> list[float]:
    return torch.linspace(1000, 0, steps + 1, dtype=torch.float64).tolist()


def even_log_snr_times(steps: int) -> list[float]:
    """Even in the log-SNR of `circle`, to a time above 0, so that the step to infinity plays no part."""
    ratios = torch.linspace(math.log(20), math.log(0.02), steps + 1, dtype=torch.float64).exp()
    return (ratios.atan() * 2000 / math.pi).tolist()


SOLVERS: dict[str, tuple[int, Callable[[Tensor, int], Tensor]]] = {
    "euler": (1, lambda x, n: _samplers.euler(mixture(straight), x, even_times(n))),
    "heun": (2, lambda x, n: _samplers.heun(mixture(straight), x, even_times(n))),
    "ddim": (1, lambda x, n: _samplers.ddim(mixture(circle), x, even_log_snr_times(n), circle)),
    "dpm_solver": (
        2,
        lambda x, n: _samplers.dpm_solver(mixture(circle), x, even_log_snr_times(n), circle),
    ),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_order_of_convergence(name: str) -> None:
    """Twice the steps divide the error by 2 for first-order methods, and by 4 for Heun's and DPM-Solver++(2M)."""
    order, solve = SOLVERS[name]
    x = torch.linspace(0.3, 2, 12, dtype=torch.float64)[:, None]
    fine = solve(x, 8192 if order == 2 else 32_768)
    errors = [(solve(x, steps) - fine).norm().item() for steps in (64, 128, 256)]
    measured = [math.log2(coarse / finer) for coarse, finer in pairwise(errors)]
    assert measured == pytest.approx([order, order], abs=0.15)


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_agree(name: str) -> None:
    """All deterministic samplers end at the same point of the same flow."""
    _, solve = SOLVERS[name]
    x = torch.linspace(0.3, 2, 12, dtype=torch.float64)[:, None]
    assert torch.allclose(solve(x, 4096), reference(name, x), atol=2e-3)


def reference(name: str, x: Tensor) -> Tensor:
    """The flow by quantiles: it maps each quantile of the noisy mixture to the same quantile of the less noisy one."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        (straight(1000), straight(0))
        if name in ("euler", "heun")
        else (circle(even_log_snr_times(1)[0]), circle(even_log_snr_times(1)[1]))
    )
    grid = torch.linspace(-4, 4, 400_001, dtype=torch.float64)
    quantile = cumulated(x[:, 0], alpha_t, sigma_t)
    return grid[torch.searchsorted(cumulated(grid, alpha_s, sigma_s), quantile)][:, None]


def cumulated(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """The cumulative distribution of the mixture, alpha x0 + sigma epsilon."""
    sd = math.hypot(0.2 * alpha, sigma)
    return (
        torch.special.ndtr((x - 0.5 * alpha) / sd) + torch.special.ndtr((x + 0.5 * alpha) / sd)
    ) / 2


@pytest.mark.parametrize("t", [30.0, 400.0, 880.0])
def test_churn_leaves_xt_as_it_is_at_a_later_time(t: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = straight(t)[0] * 0.5 + straight(t)[1] * normal_numbers(100_000)
    stirred, later = _samplers.Churn(0.3, lambda: torch.randn(x.shape, generator=generator)).stir(
        x, t
    )
    assert later / (1000 - later) == pytest.approx(1.3 * t / (1000 - t))
    alpha, sigma = straight(later)
    assert stirred.mean().item() == pytest.approx(0.5 * alpha, abs=0.01)
    assert stirred.std().item() == pytest.approx(sigma, rel=0.01)


@pytest.mark.parametrize("t", [1000.0, 900.0, 20.0])
def test_churn_keeps_away_from_both_ends(t: float) -> None:
    x = torch.ones(2, 1)
    assert _samplers.Churn(0.3, lambda: torch.ones(2, 1)).stir(x, t) == (x, t)


@pytest.mark.parametrize("sampler", ["dpm_solver", "euler", "heun"])
def test_with_churn_samples_have_the_spread_of_the_data(sampler: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    strategy = Rflow(prediction="x0", t_min=1e-6, sampler=sampler, churn=4).build()
    noise = normal_numbers(20_000)
    made = strategy.sample(
        exact(strategy), noise, 200, lambda: torch.randn(noise.shape, generator=generator)
    )
    assert made.std().item() == pytest.approx(SD, abs=WITHIN)
    kept = Rflow(prediction="x0", t_min=1e-6, sampler=sampler).build()
    assert not torch.allclose(made, kept.sample(exact(kept), noise, 200, lambda: noise), atol=0.01)


def test_churn_corrects_what_earlier_steps_got_wrong() -> None:
    """A denoiser that is off where there is much noise: later steps pull the samples back."""

    def predict(xt: Tensor, t: float) -> Prediction:
        made = mixture(straight)(xt, t)
        return made._replace(x0=made.x0 + 0.2) if t > 500 else made

    def share_above(churn: float) -> float:
        generator = torch.Generator().manual_seed(0)
        strategy = Rflow(prediction="x0", churn=churn).build()
        noise = normal_numbers(20_000)
        made = strategy.sample(
            predict, noise, 50, lambda: torch.randn(noise.shape, generator=generator)
        )
        return (made > 0).float().mean().item()

    assert 0.5 < share_above(10) < share_above(0.0) - 0.02


@pytest.mark.parametrize("timesteps", [20, 1000])
@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver", "ancestral"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 333, 999, 1000, 5000])
def test_ddpm_takes_the_steps_it_is_told(steps: int, sampler: Any, timesteps: int) -> None:
    """Every step is taken, at timesteps of the schedule, from the noisiest to 0; at most as many as it has."""
    times = Ddpm(sampler=sampler, timesteps=timesteps).build().times(steps)
    assert len(times) == min(steps, timesteps) + 1
    assert times == sorted(set(times), reverse=True)
    assert (times[0], times[-1]) == (1000, 0)
    assert all(t * timesteps / 1000 == round(t * timesteps / 1000) for t in times)


def test_epsilon_starts_where_x0_can_be_seen() -> None:
    """A network that predicts epsilon on the cosine schedule is not asked where its error would grow without bound."""
    strategy = Ddpm(prediction="epsilon", schedule="cosine").build()
    alpha, sigma = strategy.level(strategy.times(50)[0])
    assert 0.8 * _schedules.MAX_RATIO < sigma / alpha < _schedules.MAX_RATIO


@pytest.mark.parametrize("steps", [1, 2, 25, 1000])
def test_rflow_takes_the_steps_it_is_told(steps: int) -> None:
    """Times fall from exactly 1000 to exactly 0."""
    times = Rflow().build().times(steps)
    assert len(times) == steps + 1
    assert times == sorted(set(times), reverse=True)
    assert (times[0], times[-1]) == (1000, 0)


@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", 10), ("heun", 19)])
def test_number_of_evaluations(sampler: Any, evaluations: int) -> None:
    """Euler evaluates the network once per step, Heun twice but for the last."""
    strategy, seen = Rflow(sampler=sampler).build(), list[float]()

    def predict(xt: Tensor, t: float) -> Prediction:
        seen.append(t)
        return exact(strategy)(xt, t)

    strategy.sample(predict, torch.ones(2, 1), 10, lambda: torch.ones(2, 1))
    assert len(seen) == evaluations
    assert min(seen) > 0
