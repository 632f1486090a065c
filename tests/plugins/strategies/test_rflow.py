"""Rectified flow's forward process and how a network's output is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from medgen_builtins.strategies.rflow import Rflow
from torch import Tensor

from medgen.api.values import Draws

OUTPUTS = ["velocity", "x0"]


def samples(t: list[float]) -> tuple[Tensor, Draws]:
    """One sample of two channels for each t."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, len(t), 2, 4, 4, generator=generator)
    return x0 * 0.3, Draws(torch.tensor(t, dtype=torch.float32), noise)


def exact(prediction: str, x0: Tensor, draws: Draws) -> Tensor:
    """What a network puts out that knows x0."""
    return {"x0": x0, "velocity": x0 - draws.noise}[prediction]


def test_forward_process() -> None:
    """x lies on the straight line from x0 to the noise, and the target is its velocity x0 - epsilon."""
    x0, draws = samples([0, 1, 250, 999, 1000])
    noisy = Rflow().build().corrupt(x0, draws)
    t = draws.t.view(-1, 1, 1, 1) / 1000
    assert torch.allclose(noisy.x, x0 + t * (draws.noise - x0), atol=1e-6)
    assert torch.equal(noisy.target, x0 - draws.noise)
    assert torch.equal(noisy.x0, x0)
    assert torch.equal(noisy.t, draws.t)


def test_snr() -> None:
    """The SNR is ((1 - t)/t)^2."""
    x0, draws = samples([1, 100, 500, 900, 1000])
    assert torch.allclose(
        Rflow().build().corrupt(x0, draws).snr,
        torch.tensor([999.0**2, 81.0, 1.0, 1 / 81, 0.0]),
        rtol=1e-4,
    )


def test_x0_has_the_velocity_as_its_target_too() -> None:
    """A network that puts out x0 is trained on the same target as one that puts out the velocity, from t_min on."""
    x0, draws = samples([50, 51, 500, 1000])
    velocity = Rflow().build().corrupt(x0, draws)
    clean = Rflow(prediction="x0").build().corrupt(x0, draws)
    assert torch.allclose(velocity.target, clean.target, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prediction", OUTPUTS)
def test_an_exact_output_is_read_exactly(prediction: Any) -> None:
    """A network whose output is exact has the exact target and x0, so no loss, at any time."""
    strategy = Rflow(prediction=prediction).build()
    x0, draws = samples([0, 1, 20, 250, 500, 999, 1000])
    noisy = strategy.corrupt(x0, draws)
    read = strategy.read(exact(prediction, x0, draws), noisy.x, noisy.t)
    assert torch.allclose(read.target, noisy.target, atol=1e-5)
    assert torch.allclose(read.x0, x0, atol=1e-5)


@pytest.mark.parametrize("prediction", OUTPUTS)
def test_gain_is_the_slope_of_x0(prediction: Any) -> None:
    """gain is (dx0/dtarget)^2: an error of x0 is that of the target times its root."""
    strategy = Rflow(prediction=prediction).build()
    x0, draws = samples([1, 20, 250, 500, 1000])
    noisy = strategy.corrupt(x0, draws)
    output = exact(prediction, x0, draws)
    right, wrong = (strategy.read(output + error, noisy.x, noisy.t) for error in (0, 0.5))
    slope = (wrong.x0 - right.x0) / (wrong.target - right.target)
    assert torch.allclose(
        noisy.gain.view(-1, 1, 1, 1).expand_as(slope), slope**2, rtol=1e-2, atol=1e-9
    )


@pytest.mark.parametrize("prediction", OUTPUTS)
def test_finite_at_both_ends(prediction: Any) -> None:
    """Nothing is infinite at t = 0 and t = 1000, for any output."""
    strategy = Rflow(prediction=prediction).build()
    x0, draws = samples([0, 1000])
    noisy = strategy.corrupt(x0, draws)
    read = strategy.read(torch.randn_like(x0), noisy.x, noisy.t)
    assert all(torch.isfinite(each).all() for each in (*noisy, *read))


def drawn(**options: Any) -> Tensor:
    """Sorted times in 0..1."""
    draws = Rflow(**options).build().draw(torch.Generator().manual_seed(3), 20_000, (1, 2, 2))
    assert draws.noise.shape == (20_000, 1, 2, 2)
    assert draws.noise.std().item() == pytest.approx(1, abs=0.02)
    return draws.t.sort().values / 1000


def test_uniform_times() -> None:
    """uniform: the quantiles of t are those of the uniform distribution."""
    assert torch.allclose(drawn(time="uniform"), torch.linspace(0, 1, 20_000), atol=0.015)


def test_logit_normal_times() -> None:
    """logit-normal: logit(t) is normal with the mean and standard deviation of the recipe."""
    logits = drawn(time="logit-normal", logit_mean=-0.5, logit_std=0.7).logit()
    assert logits.mean().item() == pytest.approx(-0.5, abs=0.02)
    assert logits.std().item() == pytest.approx(0.7, abs=0.02)


def test_shifted_times() -> None:
    """shifted: sigma/alpha = t/(1 - t) is that of a uniform t times the shift (Esser et al. 2024, eq. 23)."""
    t = drawn(time="shifted", shift=3.0)
    uniform = t / (1 - t) / 3 / (1 + t / (1 - t) / 3)
    assert torch.allclose(uniform, torch.linspace(0, 1, 20_000), atol=0.015)


def test_half_precision_is_read_in_fp32() -> None:
    """Samples stored in fp16 and outputs in bf16 give losses their fp32."""
    strategy = Rflow(prediction="x0").build()
    x0, draws = samples([300, 700])
    noisy = strategy.corrupt(x0.half(), draws)
    read = strategy.read(x0.bfloat16(), noisy.x, noisy.t)
    assert {each.dtype for each in (*noisy, *read)} == {torch.float32}


@pytest.mark.parametrize("prediction", OUTPUTS)
def test_compiles_as_one_graph(prediction: Any) -> None:
    """`corrupt` and `read` trace without a break, once for all times, and give the same as without compiling."""
    from torch._dynamo.testing import CompileCounter

    strategy = Rflow(prediction=prediction).build()

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
