"""Images of which only a region is generated: what the network sees, what counts, and what stays as it is.

Covers: medgen.training.lesion_region.
"""

from __future__ import annotations

import pytest
import torch
from medgen_builtins.losses.mse import Mse
from medgen_builtins.spaces.pixel import Pixel
from medgen_builtins.spaces.space_to_depth import SpaceToDepth
from medgen_builtins.strategies.ddpm import Ddpm
from medgen_builtins.strategies.rflow import Rflow
from torch import nn

from medgen.api.values import Batch, Mode
from medgen.training import lesion_region, sampling
from medgen.training.objective import Objective

INSERT = Mode(("a", "b"), ("seg",), margin=2.0)
WHOLE = INSERT._replace(margin=0.0)
CPU = torch.device("cpu")
SPACES = {"pixel": Pixel(), "space_to_depth": SpaceToDepth(factor=2)}
STRATEGIES = {
    "velocity": Rflow(),
    "x0": Rflow(prediction="x0"),
    "heun": Rflow(sampler="heun"),
    "ddpm": Ddpm(),
}


class Recorder(nn.Module):
    """A network that gives a constant and keeps what it was given."""

    def __init__(self, channels: int, value: float = 0.25):
        super().__init__()
        self.channels, self.value, self.seen = channels, nn.Parameter(torch.tensor(value)), []

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach().clone())
        return self.value.expand(x.shape[0], self.channels, *x.shape[2:])


def batch(count: int = 3) -> Batch:
    """Images, and a lesion with a margin of a pixel, larger in each further sample."""
    image = torch.rand(count, 2, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    condition = torch.full((count, 1, 16, 16), -1.0)
    for number, each in enumerate(condition[:, 0]):
        each[3 : 7 + 2 * number, 3:7] = 0
        each[4 : 6 + 2 * number, 4:6] = 1
    return Batch(image, condition)


def objective(space: str = "pixel", strategy: str = "x0", mode: Mode = INSERT) -> Objective:
    made = SPACES[space].build(mode, CPU)
    return Objective(
        mode, made, STRATEGIES[strategy].build(), Recorder(made.channels), {"mse": Mse().build(CPU)}
    )


def inside(batch: Batch) -> torch.Tensor:
    return (batch.condition > -0.5).expand_as(batch.image)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("space", SPACES)
def test_the_network_sees_noise_in_the_region_alone(space, strategy):
    turn, given = objective(space, strategy), batch()
    output = turn(given, turn.draw(torch.Generator().manual_seed(1), given))
    seen = turn.space.decode(output.noisy.x)
    assert (seen[~inside(given)] == given.image[~inside(given)]).all()
    assert (seen[inside(given)] != given.image[inside(given)]).float().mean() > 0.99


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("space", SPACES)
def test_the_loss_is_the_mean_over_the_region(space, strategy):
    turn, given = objective(space, strategy), batch()
    draws = turn.draw(torch.Generator().manual_seed(1), given)
    output = turn(given, draws)
    noisy, region = output.noisy, lesion_region.region(INSERT, turn.space, given.condition)
    own = turn.strategy.read(turn.network(noisy.x, noisy.t), noisy.x, noisy.t)
    errors = (own.target - noisy.target).square()
    wanted = [error[where].mean() for error, where in zip(errors, region.inside, strict=True)]
    assert torch.allclose(output.losses["mse"], torch.stack(wanted), rtol=1e-5)


def test_what_is_given_counts_as_right():
    turn, given = objective(), batch()
    output = turn(given, turn.draw(torch.Generator().manual_seed(1), given))
    outside = ~inside(given)
    assert (output.prediction.x0[outside] == given.image[outside]).all()
    metrics = dict(
        turn.validation_metrics(
            output, output.losses["mse"], given.image, given.condition[:, 0] > 0
        )
    )
    assert "mse/lesion" in metrics
    assert "mse/outside" not in metrics


def test_a_crop_without_a_region_has_no_loss_and_no_gradient():
    turn, given = objective(), batch()
    given = given._replace(condition=torch.full_like(given.condition, -1))
    loss = turn(given, turn.draw(torch.Generator().manual_seed(1), given)).losses["mse"]
    loss.sum().backward()
    assert (loss == 0).all()
    assert turn.network.value.grad == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("space", SPACES)
def test_sampling_leaves_what_is_given_bit_for_bit_and_shows_it_without_noise(space, strategy):
    turn, batch_ = objective(space, strategy), batch()
    given = lesion_region.given(INSERT, turn.space, batch_.image, batch_.condition)
    draw = sampling.noise(
        [torch.Generator().manual_seed(n) for n in range(3)], turn.space.shape((16, 16)), CPU
    )
    made = sampling.sample(
        turn.strategy, turn.space, turn.network, batch_.condition, draw, 4, given=given
    )
    outside = ~inside(batch_)
    assert (made[outside] == batch_.image[outside]).all()
    assert (made[~outside] != batch_.image[~outside]).float().mean() > 0.99
    for seen in turn.network.seen:
        known = turn.space.decode(seen[:, : turn.space.channels])
        assert (known[outside] == batch_.image[outside]).all()


def test_whole_images_are_made_as_before():
    turn, given = objective(mode=WHOLE), batch()
    draws = turn.draw(torch.Generator().manual_seed(1), given)
    output = turn(given, draws)
    assert (output.noisy.x == turn.strategy.corrupt(given.image, draws).x).all()
    assert lesion_region.given(WHOLE, turn.space, given.image, given.condition) is None


def test_volumes_are_painted_as_slices_are():
    image, condition = torch.rand(2, 2, 8, 8, 8) * 2 - 1, torch.full((2, 1, 8, 8, 8), -1.0)
    condition[:, :, 2:5, 2:5, 2:5] = 0
    space = SpaceToDepth(factor=2).build(INSERT, CPU, 3)
    region = lesion_region.region(INSERT, space, condition)
    assert (
        space.decode(region.inside.float()) == (condition > -0.5).float().expand_as(image)
    ).all()


@pytest.mark.parametrize("mode", [INSERT, WHOLE])
@pytest.mark.parametrize("space", SPACES)
def test_painting_is_one_graph_for_the_compiler(space, mode):
    turn, given = objective(space, mode=mode), batch()
    draws = turn.draw(torch.Generator().manual_seed(1), given)
    compiled = torch.compile(turn, backend="eager", fullgraph=True)
    assert torch.equal(compiled(given, draws).losses["mse"], turn(given, draws).losses["mse"])
