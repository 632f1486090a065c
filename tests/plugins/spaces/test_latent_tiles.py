"""Tiles of autoencoders: together they give what the whole gives, are as crops were, and what does not fit is told."""

from __future__ import annotations

import pytest
import torch
from conftest import RECIPES
from medgen_builtins.networks.autoencoder import Autoencoder
from medgen_builtins.spaces._codec import Codec
from medgen_builtins.spaces.latent import Tile
from test_tiles import alone
from torch import nn

from medgen.config.recipe import load
from medgen.errors import RecipeError
from medgen.training.tiles import Tiles


def codec(network: nn.Module, tiles: Tiles | None) -> Codec:
    made = Codec("", network, 1, 1, torch.device("cpu"))
    made.tiles = tiles
    return made


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
