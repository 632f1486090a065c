"""Lesions one by one, of slices whose lesions are known.

Covers: medgen.evaluation.lesions.
"""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from evaluation import made_heads

from medgen.data.grid import Grid
from medgen.evaluation import lesions

REAL, OTHER, THIRD = (
    made_heads.heads(range(16 * part, 16 * part + 16), slices=2) for part in range(3)
)


def figures(samples, draws=30):
    return {each.name: each for each in lesions.figures_of(REAL, OTHER, samples, draws=draws)}


def one(mask, image=None, spacing=2.0):
    """A slice with a square head from 8 to 40 and a mask."""
    if image is None:
        image = np.full(mask.shape, -1, np.float32)
        image[8:40, 8:40] = 0.1
        image[8:40:2, 8:40] = -0.1
    sample = REAL.take(np.arange(1))
    grid = Grid.of_slices(mask.shape[0], spacing, "axial")
    return attrs.evolve(sample, images=image[None, None], masks=mask[None], grid=grid)


def box(*places):
    mask = np.zeros((48, 48), bool)
    for top, bottom, left, right in places:
        mask[top:bottom, left:right] = True
    return mask


def test_other_real_persons_are_not_flagged():
    assert [name for name, each in figures(THIRD, draws=60).items() if not each.as_good] == []


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (made_heads.larger_lesions, "lesion size, distance"),
        (made_heads.outside, "lesions outside of the head"),
        (made_heads.outside, "lesion depth in the head, distance"),
        (made_heads.shuffled_masks, "lesion contrast, distance"),
        (made_heads.shrunk_contrast, "lesion contrast, distance"),
    ],
)
def test_a_fault_is_seen_and_the_more_so_the_stronger_it_is(fault, name):
    sets = [figures(fault(THIRD, strength))[name] for strength in (0, 0.3, 1)]
    assert (np.diff([each.value for each in sets]) > 0).all()
    assert not sets[-1].as_good


def test_each_connected_part_is_a_lesion_and_corners_connect():
    found = lesions.lesions_of(one(box((10, 12, 10, 12), (12, 14, 12, 14), (20, 23, 30, 32))))
    assert found.count.tolist() == [2]
    assert sorted(found.size) == [6 * 4.0, 8 * 4.0]


def test_a_lesion_is_placed_in_the_box_of_the_head():
    found = lesions.lesions_of(one(box((16, 18, 30, 34))))
    assert found.centre.tolist() == [[pytest.approx(9 / 32), pytest.approx(24 / 32)]]
    assert 0 < found.depth[0] < 1


def test_depth_is_negative_outside_and_the_share_of_the_area_is_counted():
    inside, half, away = (
        lesions.lesions_of(one(box(place)))
        for place in ((20, 24, 20, 24), (2, 14, 20, 24), (0, 3, 0, 3))
    )
    assert [inside.outside[0], away.outside[0]] == [0, 1]
    assert 0.25 < half.outside[0] < 0.5  # less what an outline may miss
    assert inside.depth[0] > 0 > away.depth[0]


def test_shapes_are_those_of_squares_lines_and_corners():
    square, line, corner = (
        lesions.lesions_of(one(mask))
        for mask in (
            box((20, 24, 20, 24)),
            box((20, 21, 10, 18)),
            box((20, 30, 20, 22), (28, 30, 20, 30)),
        )
    )
    assert square.elongation[0] == pytest.approx(1)
    assert line.elongation[0] == pytest.approx(8)  # a bar of 8 x 1: sqrt((8^2 / 12) / (1 / 12))
    assert [square.solidity[0], line.solidity[0]] == pytest.approx([1, 1])
    assert corner.solidity[0] == pytest.approx(36 / (36 + 32))  # the hull adds a triangle of 8 x 8


def test_contrast_is_in_deviations_of_the_head_and_knows_no_other_lesion():
    mask = box((20, 24, 20, 24), (20, 24, 25, 29))
    sample = one(mask)
    sample.images[0, 0, mask] = 0.5
    head = sample.images[0, 0, 8:40, 8:40]
    found = lesions.lesions_of(sample)
    assert found.contrast[:, 0] == pytest.approx(0.5 / head.std(), abs=1e-5)


def test_a_lesion_of_one_pixel_and_one_without_surroundings_are_measured():
    pixel = lesions.lesions_of(one(box((20, 21, 20, 21))))
    assert [pixel.elongation[0], pixel.solidity[0]] == [1, 1]
    assert np.isnan(lesions.lesions_of(one(box((0, 3, 0, 3)))).contrast).all()


def test_slices_without_lesions_or_heads_have_figures_too():
    bare = attrs.evolve(THIRD, masks=np.zeros_like(THIRD.masks))
    found = figures(bare, draws=5)
    assert found["lesions per slice"].value == 0
    assert not found["lesions per slice"].as_good
    assert np.isnan(found["lesion size"].value)
    black = attrs.evolve(THIRD, images=np.full_like(THIRD.images, -1))
    assert figures(black, draws=5)["lesions outside of the head"].value == 1


def test_a_lesion_painted_beyond_the_head_lies_outside_all_the_same():
    mask = box((0, 7, 20, 26), (30, 34, 20, 24))
    sample = one(mask)
    sample.images[0, 0, mask] = 0.9
    assert lesions.lesions_of(sample).outside.tolist() == [pytest.approx(1, abs=0.3), 0]
