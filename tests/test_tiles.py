"""Tiles: together they give what the whole gives, no network is shown more than a tile, and samplers see no seams."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from medgen_builtins.spaces.pixel import Pixel
from medgen_builtins.spaces.space_to_depth import SpaceToDepth
from medgen_builtins.spaces.wavelet import Wavelet
from medgen_builtins.strategies.ddpm import Ddpm
from medgen_builtins.strategies.rflow import Rflow
from test_lesion_region import Recorder
from torch import nn

from medgen.api.tables import DataSettings
from medgen.api.values import Mode
from medgen.training import sampling
from medgen.training.tiles import Tiles, in_tiles, of_crops, parts

CPU = torch.device("cpu")
MODE = Mode(("bravo",), ("seg",))


@pytest.mark.parametrize(
    ("length", "size", "overlap"),
    [(16, 16, 4), (8, 16, 8), (17, 16, 8), (100, 16, 4), (48, 16, 0), (31, 16, 8), (24, 16, 8)],
)
def test_an_axis_is_divided_into_as_few_parts_as_overlap(length, size, overlap):
    found = parts(length, size, overlap)
    assert (found[0].start, found[-1].stop) == (0, length)
    assert all(one.stop - other.start >= overlap for one, other in pairwise(found))
    assert len(found) == max(1, -(-(length - overlap) // (size - overlap)))
    assert all(part.stop - part.start == min(size, length) for part in found)


@pytest.mark.parametrize("shape", [(37, 20), (37, 20, 18)])
def test_what_is_the_same_everywhere_has_no_seams(shape):
    x = torch.rand(2, 3, *shape)
    tiles = Tiles((8,) * len(shape), 4)
    torch.testing.assert_close(in_tiles(torch.clone, x, tiles, 1, 1), x)
    large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    if len(shape) == 3:
        large = large.repeat_interleave(2, 4)
    pool = nn.AvgPool2d(2) if len(shape) == 2 else nn.AvgPool3d(2)
    torch.testing.assert_close(in_tiles(pool, large, tiles, 2, 1), x)
    torch.testing.assert_close(in_tiles(nn.Upsample(scale_factor=2), x, tiles, 1, 2), large)


def test_a_network_that_sees_a_quarter_of_the_overlap_gives_the_whole_everywhere():
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv3d(4, 1, 3, padding=1))
    x = torch.randn(1, 1, 32, 24, 13)
    with torch.no_grad():
        made = in_tiles(network, x, Tiles((16, 16, 16), 8), 1, 1)
        torch.testing.assert_close(made, network(x), atol=1e-5, rtol=0)
        narrow = in_tiles(network, x, Tiles((16, 16, 16), 0), 1, 1)
    assert (narrow - network(x)).abs().max() > 0.01


def test_no_network_is_shown_more_than_a_tile():
    seen = []

    def compute(x):
        seen.append(tuple(x.shape[2:]))
        return x

    in_tiles(compute, torch.zeros(1, 1, 64, 48, 20), Tiles((8, 8, 8), 2), 2, 2)
    assert set(seen) == {(16, 16, 16)}


# Samples made in tiles


def alone(length: int, tiles: Tiles) -> torch.Tensor:
    """Where an axis is covered by one tile alone, bool `[length]`."""
    covered = torch.zeros(length)
    for part in parts(length, tiles.size[0], tiles.overlap):
        covered[part.start : part.stop] += 1
    return covered == 1


class Blur(nn.Module):
    """A network that sees two points to each side: a made-up velocity."""

    def __init__(self, channels: int, axes: int, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        kind = nn.Conv2d if axes == 2 else nn.Conv3d
        self.layers = nn.Sequential(
            kind(channels + 1, 4, 3, padding=1), nn.SiLU(), kind(4, channels, 3, padding=1)
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        scale = (t / 1000).view(-1, *(1,) * (x.ndim - 1))
        return self.layers(x) * scale


def made(strategy, network, size, tiles, steps=3, count=2, guidance=0.0):
    torch.manual_seed(0)
    space = Pixel().build(MODE, CPU)
    condition = torch.ones(count, 1, *size)
    condition[:, :, 4:9] = -1
    streams = [torch.Generator().manual_seed(number) for number in range(count)]
    draw = sampling.noise(streams, (1, *size), CPU)
    given = (strategy.build(), space, network, condition, draw, steps)
    return sampling.sample(*given, tiles=tiles, guidance=guidance)


STRATEGIES = pytest.mark.parametrize("strategy", [Rflow(), Rflow(sampler="heun"), Ddpm()])


@STRATEGIES
@pytest.mark.parametrize("size", [(48, 24), (32, 16, 16)])
def test_a_network_that_sees_little_samples_in_tiles_as_of_the_whole(strategy, size):
    network, edges = Blur(1, len(size)), (16,) * len(size)
    whole = made(strategy, network, size, None)
    torch.testing.assert_close(
        made(strategy, network, size, Tiles(edges, 8)), whole, atol=1e-5, rtol=0
    )
    assert (made(strategy, network, size, Tiles(edges, 0)) - whole).abs().max() > 1e-3


@STRATEGIES
@pytest.mark.parametrize("size", [(48, 24), (32, 16, 16)])
def test_guidance_by_the_mask_is_that_of_the_whole_in_tiles_too(strategy, size):
    network, tiles = Blur(1, len(size)), Tiles((16,) * len(size), 8)
    whole = made(strategy, network, size, None, guidance=2.0)
    tiled = made(strategy, network, size, tiles, guidance=2.0)
    torch.testing.assert_close(tiled, whole, atol=2e-5, rtol=0)
    assert (tiled - made(strategy, network, size, tiles)).abs().max() > 1e-3


@STRATEGIES
def test_a_network_that_sees_as_far_as_tiles_overlap_gives_the_whole_in_their_middles(strategy):
    network, tiles = Blur(1, 2), Tiles((16, 16), 2)
    whole = made(strategy, network, (44, 16), None, steps=1)
    tiled = made(strategy, network, (44, 16), tiles, steps=1)
    inside = alone(44, tiles)
    assert 30 < inside.sum() < 44
    torch.testing.assert_close(tiled[:, :, inside], whole[:, :, inside], atol=1e-5, rtol=0)
    assert not torch.allclose(tiled, whole, atol=1e-4)


def test_every_tile_is_of_the_size_that_was_trained_on_and_sees_its_own_part_of_the_condition():
    network = Recorder(1)
    made(Rflow(), network, (16, 12), Tiles((8, 8), 4))
    assert {tuple(seen.shape) for seen in network.seen} == {(2, 2, 8, 8)}
    first = [seen[0, 1, :, 0] for seen in network.seen[:6]]  # three times two of the first step
    assert [tile.tolist().count(-1) for tile in first] == [4, 4, 5, 5, 1, 1]


def test_a_sample_of_the_size_of_a_tile_is_computed_as_without_tiles():
    network = Blur(1, 2)
    whole = made(Rflow(), network, (8, 8), None)
    assert torch.equal(made(Rflow(), network, (8, 8), Tiles((8, 8), 4)), whole)


@pytest.mark.parametrize(
    ("space", "tiles"),
    [
        (Pixel(), Tiles((8, 16, 8), 4)),
        (SpaceToDepth(factor=2), Tiles((4, 8, 4), 2)),
        (Wavelet(levels=2), Tiles((2, 4, 2), 1)),
    ],
)
def test_tiles_are_crops_in_the_grid_of_the_space(space, tiles):
    data = DataSettings(dimensions=3, image_size=32, patch_size=(8, 16, 8))
    assert of_crops(space.build(MODE, CPU, 3), data) == tiles
    assert of_crops(space.build(MODE, CPU, 3), DataSettings(dimensions=3)) is None
