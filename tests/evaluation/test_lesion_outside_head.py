"""Where a lesion lies is judged by the head without it: what a model paints into the air is no head."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medgen.evaluation.lesion_outside_head import OUTSIDE, beyond, outside, worst_outside

SIDE = 96
PLACES = range(0, 8, 2)
PIXELS = np.stack(np.mgrid[:SIDE, :SIDE], -1) - (SIDE - 1) / 2


def head() -> np.ndarray:
    """Distance of each pixel from the rim of an egg, px, negative inside."""
    down, across = PIXELS[..., 0] / 27, PIXELS[..., 1] / 34
    inside = np.hypot(down / (1 - 0.12 * across), across) < 1
    return np.where(
        inside,
        0.5 - ndimage.distance_transform_edt(inside),
        ndimage.distance_transform_edt(~inside) - 0.5,
    )


RIM = head()


def slice_with(
    diameter: float, depth: float, place: int, painted: float = 0.8
) -> tuple[np.ndarray, np.ndarray]:
    """An image `[1, h, w]` and a round lesion, its centre `depth` px from the rim, in one of eight directions."""
    turn = (place + 0.4) * np.pi / 4
    toward = PIXELS @ (np.cos(turn), np.sin(turn))
    ray = (np.abs(PIXELS @ (-np.sin(turn), np.cos(turn))) < 0.8) & (toward > 0)
    centre = np.argwhere(ray)[np.abs(RIM[ray] - depth).argmin()] - (SIDE - 1) / 2
    lesion = np.hypot(*np.moveaxis(PIXELS - centre, -1, 0)) < diameter / 2
    rng = np.random.default_rng(place)
    texture = ndimage.gaussian_filter(rng.normal(size=RIM.shape), 2)
    image = np.where(RIM < 0, 0.2 + 0.1 * texture / texture.std(), -1)
    image = ndimage.gaussian_filter(np.where(lesion, painted, image), 0.7)
    return np.clip(image, -1, 1).astype(np.float32)[None], lesion


@pytest.mark.parametrize("diameter", [2, 5, 20])
def test_a_lesion_in_the_brain_or_at_its_cortex_is_inside_however_large(diameter):
    for depth in (-diameter / 2 - 4, -diameter / 2):
        assert [outside(*slice_with(diameter, depth, place)) for place in PLACES] == [0] * len(
            PLACES
        )


@pytest.mark.parametrize("painted", [0.8, -1.0])
@pytest.mark.parametrize("diameter", [4, 8, 20])
def test_a_lesion_beyond_the_rim_is_outside_painted_or_not(diameter, painted):
    for depth in (diameter / 2 + 0.6, diameter / 2 + 4):
        shares = [outside(*slice_with(diameter, depth, place, painted)) for place in PLACES]
        assert min(shares) > 0.3, (depth, shares)


@pytest.mark.parametrize("diameter", [12, 20])
def test_of_a_lesion_half_of_which_sticks_out_a_good_part_is_outside(diameter):
    shares = [outside(*slice_with(diameter, 0, place)) for place in PLACES]
    assert min(shares) > OUTSIDE
    assert np.mean(shares) > 0.1


def test_only_what_lies_beyond_the_rim_is_counted():
    image, lesion = slice_with(14, 1, 0)
    found = beyond(image, lesion)
    assert (RIM[found] > 1).all()
    assert (RIM[lesion & ~found] < 4).all()


def test_of_two_lesions_one_outside_counts_with_its_area():
    image, one = slice_with(8, -20, 2)
    painted, two = slice_with(8, 8, 5)
    image = np.where(ndimage.binary_dilation(two, iterations=2), painted, image)
    assert outside(image, one | two) == pytest.approx(two.sum() / (one | two).sum())


def test_a_speck_beyond_the_rim_is_the_worst_of_the_lesions_however_small():
    image, one = slice_with(20, -20, 2)
    two = np.zeros_like(one)
    two[2, 2] = True
    assert outside(image, one | two) <= OUTSIDE
    assert worst_outside(image, one | two) == 1
    assert worst_outside(image, one) == worst_outside(image, np.zeros_like(one)) == 0


def test_a_lesion_in_a_ventricle_or_in_a_hole_that_it_makes_itself_is_inside():
    image, lesion = slice_with(8, -20, 0, painted=-1.0)
    assert outside(image, lesion) == 0
    image[0, 44:52, 44:52] = -1
    assert outside(image, lesion) == 0


def test_channels_are_judged_together_and_at_any_level_of_background():
    image, lesion = slice_with(8, 8, 1)
    assert outside(np.concatenate([image, image]), lesion) == outside(image, lesion) == 1
    assert outside(image * 0.5, lesion) == 1


def test_without_a_head_every_lesion_is_outside_and_without_a_lesion_none():
    image, lesion = slice_with(8, -20, 0)
    empty = np.full_like(image, -1)
    assert outside(empty, lesion) == 1
    assert outside(np.where(lesion, 0.8, empty), lesion) == 1
    assert outside(image, np.zeros_like(lesion)) == 0
    assert outside(image, np.ones_like(lesion)) == 1


def test_a_lesion_that_hides_all_of_the_rim_is_judged_by_what_it_leaves():
    image, _ = slice_with(2, -20, 0)
    assert outside(image, (RIM > -8) & (RIM < 0)) == 0
    assert outside(image, (RIM > -8) & (RIM < 30)) > 0.3
