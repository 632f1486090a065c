"""The folded space."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from medgen_builtins.spaces.space_to_depth import SpaceToDepth, SpaceToDepthSpace, fold
from torch import nn

from medgen.api.tables import DataSettings
from medgen.api.values import Draws, Mode

DRAWS = Draws(torch.zeros(2), torch.zeros(2))


def build(axes: int = 2, **options: Any) -> SpaceToDepthSpace:
    return SpaceToDepth(**options).build(
        Mode(images=("a", "b"), condition=("seg",)), torch.device("cpu"), axes
    )


@pytest.mark.parametrize(
    ("factor", "size"), [(1, (3, 5)), (2, (8, 4)), (3, (6, 9)), (2, (4, 6, 8)), (4, (8, 4, 12))]
)
def test_loses_nothing(factor: int, size: tuple[int, ...]) -> None:
    """An image of two or three axes comes back exactly, and its samples have the shape that the space says."""
    space = build(len(size), factor=factor)
    image = torch.randn(2, 2, *size)
    z = space.encode(space.prepare(image), DRAWS)
    assert tuple(z.shape[1:]) == space.shape(size)
    assert z.shape[1] == space.channels == 2 * factor ** len(size)
    assert torch.equal(space.decode(z), image)


def test_a_block_becomes_the_channels_of_one_pixel() -> None:
    """The four pixels of a block stand at one place, in reading order, as torch's own pixel_unshuffle has them."""
    image = torch.randn(2, 3, 8, 6)
    assert torch.equal(fold(image, 2), nn.functional.pixel_unshuffle(image, 2))


def test_condition_is_folded_like_the_image() -> None:
    """Masks lie on the same grid as the samples."""
    space = build()
    mask = torch.randn(2, 1, 8, 6)
    assert torch.equal(space.condition(mask), fold(mask, 2))
    assert space.condition_channels == 4


def test_no_condition_stays_none() -> None:
    """Zero channels stay zero channels, on the grid of the samples."""
    space = SpaceToDepth().build(Mode(images=("seg",)), torch.device("cpu"))
    assert space.condition_channels == 0
    assert space.condition(torch.zeros(2, 0, 8, 6)).shape == (2, 0, 4, 3)


@pytest.mark.parametrize(("size", "mistakes"), [(64, 0), (63, 1)])
def test_sizes_that_do_not_fold_are_mistakes(size: int, mistakes: int) -> None:
    """An image size that the factor does not divide is reported with its key."""
    recipe: Any = SimpleNamespace(data=DataSettings(image_size=size))
    found = list(SpaceToDepth().check(recipe))
    assert len(found) == mistakes
    assert all(str(each).startswith(f"data.image_size: got {size}, ") for each in found)
