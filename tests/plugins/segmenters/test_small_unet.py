"""The built-in segmenter."""

from __future__ import annotations

import torch
from medgen_builtins.segmenters.small_unet import SmallUnet

from medgen import SegmenterSettings
from medgen.config.registry import Registry


def test_it_is_registered_as_a_segmenter():
    assert Registry.load().get("segmenters", "small_unet").settings_class is SmallUnet
    assert issubclass(SmallUnet, SegmenterSettings)


def test_logits_have_one_channel_and_the_size_of_the_images():
    network = SmallUnet(channels=(4, 4, 8)).build(in_channels=2)
    assert network(torch.zeros(3, 2, 32, 48)).shape == (3, 1, 32, 48)


def test_the_first_level_works_at_full_size_so_that_a_pixel_counts():
    network = SmallUnet(channels=(4, 4)).build(1).eval()
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 5, 6] = 1
    changed = (network(image) - network(torch.zeros_like(image)))[0, 0].abs()
    assert changed[4:7, 5:8].max() == changed.max()
