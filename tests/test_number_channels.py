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
from medgen.training.number_channels import conditions, coordinates, of_whole
from medgen.training.objective import Objective
from medgen.training.tiles import Tiles

PLAIN = Mode(("bravo",), ("seg",))
GIVEN = PLAIN._replace(numbers=("position", "spacing"))
PLACED = PLAIN._replace(numbers=("place", "spacing"))
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


# The place of crops


@pytest.mark.parametrize("factor", [1, 2])
def test_a_crop_has_the_coordinates_that_the_whole_has_there_bit_for_bit(factor):
    shape, corner, side = (24, 14, 36), (6, 4, 28), 8
    whole = of_whole(PLACED, torch.empty(1, 0, *shape))
    place = torch.tensor([[corner, shape]], dtype=torch.float32)
    cut = tuple(slice(start // factor, (start + side) // factor) for start in corner)
    every = coordinates(whole, shape, [length // factor for length in shape])
    found = coordinates(place, (side,) * 3, (side // factor,) * 3)
    assert torch.equal(found, every[(slice(None), slice(None), *cut)])
    assert found.shape == (1, 3, *(side // factor,) * 3)


def test_coordinates_reach_from_edge_to_edge_along_each_axis():
    found = coordinates(of_whole(PLACED, torch.empty(2, 1, 4, 2)), (4, 2), (4, 2))
    assert found[1, 0, :, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]  # middles of pixels
    assert found[0, 1, 3].tolist() == [-0.5, 0.5]
    halves = coordinates(of_whole(PLACED, torch.empty(1, 1, 4, 4)), (4, 4), (2, 2))
    assert halves[0, 0, :, 0].tolist() == [-0.5, 0.5]


def test_a_corner_within_a_block_of_the_space_moves_the_coordinates_by_as_much():
    place = torch.tensor([[[3.0, 0.0], [16.0, 16.0]]])
    found = coordinates(place, (8, 8), (4, 4))
    assert found[0, 0, :, 0].tolist() == [-0.5, -0.25, 0.0, 0.25]  # 4, 6, 8 and 10 px of 16


@pytest.mark.parametrize("space", SPACES)
def test_the_network_is_given_the_place_after_the_numbers_and_tiles_have_their_own(space):
    turn, given = objective(space, PLACED), batch(NUMBERS[:, :1])
    place = torch.tensor([[[4.0, 2.0], [16.0, 12.0]]]).expand(3, -1, -1)
    given = given._replace(place=place)
    turn(given, turn.draw(torch.Generator().manual_seed(1), given))
    [seen] = turn.network.seen
    expected = coordinates(place, (8, 8), seen.shape[2:])
    assert torch.equal(seen[:, -2:], expected)
    assert torch.equal(seen[:, -3:-2], NUMBERS[:, :1, None, None].expand_as(seen[:, -3:-2]))
    condition = torch.ones(3, 1, 16, 12)
    draw = sampling.noise([torch.Generator() for _ in range(3)], turn.space.shape((16, 12)), CPU)
    tiles = Tiles(tuple(seen.shape[2:]), seen.shape[2] // 2)
    whole = of_whole(PLACED, condition)
    turn.network.seen.clear()
    sampling.sample(turn.strategy, turn.space, turn.network, condition, draw, 1,
                    numbers=NUMBERS[:, :1], place=whole, tiles=tiles)  # fmt: skip
    assert len(turn.network.seen) == 3 * 2
    assert sum(torch.equal(tile[:, -2:-1], expected[:, :1]) for tile in turn.network.seen) == 2
    assert {tile.shape for tile in turn.network.seen} == {seen.shape}


def test_the_place_is_part_of_the_one_graph_of_the_compiler():
    turn = objective("space_to_depth", PLACED._replace(numbers=("place",)))
    given = batch(())._replace(place=torch.tensor([[[4.0, 2.0], [16.0, 12.0]]]).expand(3, -1, -1))
    draws = turn.draw(torch.Generator().manual_seed(1), given)
    compiled = torch.compile(turn, backend="eager", fullgraph=True)
    assert torch.equal(compiled(given, draws).losses["mse"], turn(given, draws).losses["mse"])


def test_without_a_place_there_is_none():
    assert of_whole(GIVEN, torch.empty(1, 1, 4, 4)) == ()
    assert batch()._replace(place=torch.ones(3, 2, 2)).map(lambda part: part[:1]).place.shape == (
        1, 2, 2,
    )  # fmt: skip


def test_every_tensor_of_a_batch_is_changed_and_no_numbers_stay_none():
    assert torch.equal(batch().map(lambda part: part[:1]).numbers, NUMBERS[:1])
    assert batch(()).map(lambda part: part[:1]).numbers == ()
