"""Numbers reach the network as constant channels after the condition's, in training as in sampling."""

from __future__ import annotations

import pytest
import torch
from medgen_builtins.losses.mse import Mse
from medgen_builtins.spaces.pixel import Pixel
from medgen_builtins.spaces.space_to_depth import SpaceToDepth
from medgen_builtins.strategies.rflow import Rflow
from test_lesion_region import CPU, Recorder

from medgen.api.values import Batch, Mode
from medgen.training import sampling
from medgen.training.number_channels import conditions
from medgen.training.objective import Objective

PLAIN = Mode(("bravo",), ("seg",))
GIVEN = PLAIN._replace(numbers=("position", "spacing"))
SPACES = {"pixel": Pixel(), "space_to_depth": SpaceToDepth(factor=2)}
NUMBERS = torch.tensor([[-1.0, 0.25], [0.5, 0.0], [1.0, -0.25]])


def batch(numbers: torch.Tensor | tuple[()] = NUMBERS) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image, condition = (torch.rand(3, 1, 8, 8, generator=generator) * 2 - 1 for _ in range(2))
    return Batch(image, condition.sign(), numbers)


def objective(space: str, mode: Mode = GIVEN) -> Objective:
    made = SPACES[space].build(mode, CPU)
    losses = {"mse": Mse().build(CPU)}
    return Objective(mode, made, Rflow().build(), Recorder(made.channels), losses)


@pytest.mark.parametrize("space", SPACES)
def test_the_network_is_given_each_number_as_a_constant_channel_after_the_condition(space):
    turn, given = objective(space), batch()
    turn(given, turn.draw(torch.Generator().manual_seed(1), given))
    [seen] = turn.network.seen
    known = turn.space.channels + turn.space.condition_channels
    assert seen.shape[1] == known + 2
    condition = turn.space.condition(given.condition)
    assert torch.equal(seen[:, turn.space.channels : known], condition)
    assert torch.equal(seen[:, known:], NUMBERS[:, :, None, None].expand(3, 2, *seen.shape[2:]))


@pytest.mark.parametrize("space", SPACES)
def test_sampling_gives_them_as_training_does(space):
    turn, given = objective(space), batch()
    generators = [torch.Generator().manual_seed(number) for number in range(3)]
    draw = sampling.noise(generators, turn.space.shape((8, 8)), CPU)
    sampling.sample(
        turn.strategy, turn.space, turn.network, given.condition, draw, 3, numbers=given.numbers
    )
    expected = conditions(turn.space, given.condition, given.numbers)
    assert len(turn.network.seen) == 3
    assert all(torch.equal(seen[:, turn.space.channels :], expected) for seen in turn.network.seen)


@pytest.mark.parametrize("space", SPACES)
def test_without_numbers_the_network_is_given_the_condition_alone(space):
    turn, given = objective(space, PLAIN), batch(())
    turn(given, turn.draw(torch.Generator().manual_seed(1), given))
    condition = turn.space.condition(given.condition)
    assert torch.equal(turn.network.seen[0][:, turn.space.channels :], condition)


def test_a_model_without_a_condition_may_be_given_numbers_and_volumes_too():
    space = Pixel().build(Mode(("seg",), numbers=("position",)), CPU)
    found = conditions(space, torch.empty(3, 0, 4, 4, 4), NUMBERS[:, :1])
    assert found.shape == (3, 1, 4, 4, 4)
    assert found[1].unique().tolist() == [0.5]


@pytest.mark.parametrize("space", SPACES)
def test_numbers_are_part_of_the_one_graph_of_the_compiler(space):
    turn, given = objective(space), batch()
    draws = turn.draw(torch.Generator().manual_seed(1), given)
    compiled = torch.compile(turn, backend="eager", fullgraph=True)
    assert torch.equal(compiled(given, draws).losses["mse"], turn(given, draws).losses["mse"])


def test_every_tensor_of_a_batch_is_changed_and_no_numbers_stay_none():
    assert torch.equal(batch().map(lambda part: part[:1]).numbers, NUMBERS[:1])
    assert batch(()).map(lambda part: part[:1]).numbers == ()
