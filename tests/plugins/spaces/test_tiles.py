"""Tiles: together they give what the whole gives, no network is shown more than a tile, and what does not fit is told."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from conftest import RECIPES
from medgen_builtins.networks.autoencoder import Autoencoder
from medgen_builtins.spaces._latent_autoencoder import Codec
from medgen_builtins.spaces._tiles import Tiles, in_tiles, parts
from medgen_builtins.spaces.latent import Tile
from torch import nn

from medgen.config.recipe import load
from medgen.errors import RecipeError


def codec(network: nn.Module, tiles: Tiles | None) -> Codec:
    made = Codec("", network, 1, 1, torch.device("cpu"))
    made.tiles = tiles
    return made


def alone(length: int, tiles: Tiles) -> torch.Tensor:
    """Where an axis is covered by one tile alone, bool `[length]`."""
    covered = torch.zeros(length)
    for part in parts(length, tiles.size[0], tiles.overlap):
        covered[part.start : part.stop] += 1
    return covered == 1


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


def test_an_autoencoder_gives_the_whole_where_tiles_do_not_overlap():
    """Its norms, which see all of an image, are left out; it sees 18 px."""
    options = Autoencoder(channels=(8, 8), num_res_blocks=1)
    network = options.build(1, 1, 3)
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    image, tiles = torch.rand(1, 1, 120, 8, 8) * 2 - 1, Tiles((24, 24, 24), 12)
    whole, tiled = codec(network, None), codec(network, tiles)
    inside = alone(60, tiles)
    assert 10 < inside.sum() < 60
    with torch.no_grad():
        for one, other in zip(whole.moments(image), tiled.moments(image), strict=True):
            torch.testing.assert_close(one[:, :, inside], other[:, :, inside], atol=1e-4, rtol=0)
        z = torch.randn(1, 4, 60, 4, 4)
        one, other = whole.decode(z), tiled.decode(z)
    inside = inside.repeat_interleave(2)
    torch.testing.assert_close(one[:, :, inside], other[:, :, inside], atol=1e-4, rtol=0)
    assert (one - other).abs().max() < 0.1


def test_no_network_is_shown_more_than_a_tile():
    seen = []

    def compute(x):
        seen.append(tuple(x.shape[2:]))
        return x

    in_tiles(compute, torch.zeros(1, 1, 64, 48, 20), Tiles((8, 8, 8), 2), 2, 2)
    assert set(seen) == {(16, 16, 16)}


def test_the_overlap_is_a_quarter_unless_given():
    assert Tile(size=64).tiles(4, 3) == Tiles((16, 16, 16), 4)
    assert Tile(size=64, overlap=32).tiles(4, 2) == Tiles((16, 16), 8)
    assert Tile().tiles(4, 3) is None


def test_tiles_are_as_the_crops_that_the_autoencoder_knows_unless_given():
    assert Tile().tiles(4, 3, (64, 32, 48)) == Tiles((16, 8, 12), 2)
    assert Tile(size=0).tiles(4, 3, (64, 32, 48)) is None
    assert Tile(size=16).tiles(4, 3, (64, 32, 48)) == Tiles((4, 4, 4), 1)
    with pytest.raises(RecipeError, match="got 32, expected at most half of a tile, which has 32"):
        Tile(overlap=32).tiles(4, 3, (64, 32, 48))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("size=30", "space.latent.tile.size: got 30, expected a multiple of space.latent.factor = 4"),
        ("size=8 space.latent.tile.overlap=8", "overlap: got 8, expected at most half of a tile, which has 8 px"),
        ("overlap=3", "space.latent.tile.overlap: got 3, expected a multiple of"),
    ],
)  # fmt: skip
def test_tiles_that_do_not_fit_are_told(given, told):
    with pytest.raises(RecipeError) as error:
        load(RECIPES / "bravo_rflow_latent.toml", f"space.latent.tile.{given}".split())
    assert told in error.value.lines[0]
