"""The pixel space."""

from __future__ import annotations

import torch
from medgen_builtins.spaces.pixel import Pixel

from medgen.api.values import Draws, Mode


def test_changes_nothing() -> None:
    """Images and conditions go through as they are, and so do their numbers of channels and sizes."""
    space = Pixel().build(Mode(images=("a", "b"), condition=("seg",)), torch.device("cpu"))
    image = torch.randn(2, 2, 6, 4)
    draws = Draws(torch.zeros(2), torch.zeros(2))
    assert torch.equal(space.decode(space.encode(space.prepare(image), draws)), image)
    assert torch.equal(space.condition(image), image)
    assert (space.channels, space.condition_channels) == (2, 1)
    assert space.shape((6, 4)) == (2, 6, 4)
    assert Pixel().spatial((6, 4)) == (6, 4)


def test_pooled_images_have_one_channel() -> None:
    """Pooled modes diffuse one channel, however many images they draw from."""
    assert Pixel().build(Mode(images=("a", "b"), pooled=True), torch.device("cpu")).channels == 1
