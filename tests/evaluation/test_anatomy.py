"""What the figures of anatomy and intensity see, and what they leave alone.

Covers: medgen.evaluation.anatomy, medgen.evaluation.distributions, medgen.evaluation.heads,
medgen.evaluation.intensities.
"""

from __future__ import annotations

import functools

import attrs
import numpy as np
import pytest
from evaluation import made_heads
from scipy import stats

from medgen.data.grid import Grid
from medgen.evaluation import anatomy, intensities
from medgen.evaluation.distributions import Wasserstein
from medgen.evaluation.heads import boxed, boxes_of, heads_of

REAL, OTHER, THIRD = (
    made_heads.heads(range(16 * part, 16 * part + 16), slices=3) for part in range(3)
)
DRAWS = 40


def figures(samples, draws=DRAWS):
    return {each.name: each for each in anatomy.figures_of(REAL, OTHER, samples, draws=draws)}


@functools.cache
def spoilt(fault):
    """The figures of slices that are spoilt more and more; of the worst, intervals can be told."""
    return [figures(fault(THIRD, strength), draws=2) for strength in (0, 0.25, 0.5)] + [
        figures(fault(THIRD, 1))
    ]


def test_other_real_persons_are_not_flagged():
    assert [name for name, each in figures(THIRD, draws=100).items() if not each.as_good] == []


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (made_heads.blur, "spectrum, distance"),
        (made_heads.blur, "noise, distance"),
        (made_heads.noise, "noise, distance"),
        (made_heads.noise, "sharpness, distance"),
        (made_heads.gamma, "intensities, distance"),
        (made_heads.upside_down, "layout of the head, distance"),
        (made_heads.missing_ventricle, "middle of the head, distance"),
    ],
)
def test_a_fault_is_seen_and_the_more_so_the_stronger_it_is(fault, name):
    found = [each[name] for each in spoilt(fault)]
    assert (np.diff([each.value for each in found]) > 0).all(), found
    assert not found[-1].as_good


def test_brains_that_are_no_mixture_of_real_ones_are_told_from_other_patients():
    name = "unexplained anatomy"
    mottled = made_heads.mottled(THIRD, 1)
    assert figures(THIRD)[name].as_good
    assert not figures(mottled)[name].as_good


def test_brains_with_unlike_halves_have_less_mirror_symmetry():
    found = figures(made_heads.mottled(THIRD, 1))["mirror symmetry"]
    assert found.high < found.reference_low


def test_the_axis_of_symmetry_is_that_of_the_real_slices():
    turned = attrs.evolve(REAL, images=REAL.images.swapaxes(2, 3))
    assert anatomy.mirror_axis(REAL) == 1 - anatomy.mirror_axis(turned)


def test_the_head_area_is_in_square_centimetres():
    place = np.hypot(*np.mgrid[:64, :64] - 31.5)
    images = np.where(place < 20, 0.2, -1.0)[None, None].astype(np.float32)
    disk = attrs.evolve(
        REAL.take(np.arange(1)), images=images, grid=Grid.of_slices(64, 3.0, "axial")
    )
    area = dict(anatomy.measures(disk, 0))["head area"]
    assert area[0, 0] == pytest.approx(np.pi * 60**2 / 100, rel=0.06)


def test_noise_is_measured_in_the_units_of_the_image():
    drawn = 0.1 * np.random.default_rng(0).standard_normal((4, 1, 48, 48)).astype(np.float32)
    assert intensities.noise(drawn, np.ones((4, 48, 48), bool)).mean() == pytest.approx(
        0.1, rel=0.03
    )


def test_distances_are_those_of_scipy_column_by_column():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((30, 3)), rng.standard_normal((50, 3)) * 2 + 1
    first[:4, 1] = np.nan
    rows = rng.integers(30, size=30), rng.integers(50, size=50)
    expected = [
        stats.wasserstein_distance(one[~np.isnan(one)], two) / spread
        for one, two, spread in zip(first[rows[0]].T, second[rows[1]].T, second.std(0), strict=True)
    ]
    assert Wasserstein(first, second)(*rows) == pytest.approx(expected, rel=1e-9)


def test_a_column_without_values_has_no_distance_and_leaves_the_mean_alone():
    first, second = np.array([[0.0, np.nan], [1.0, np.nan]]), np.array([[2.0, 1.0], [4.0, 1.0]])
    distance = Wasserstein(first, second)
    everyone = np.arange(2), np.arange(2)
    assert np.isnan(distance(*everyone)[1])
    assert distance.mean(*everyone) == pytest.approx(2.5)


def test_a_head_is_one_part_with_what_it_encloses():
    image = np.full((1, 1, 32, 32), -1, np.float32)
    image[0, 0, 8:24, 8:24] = 0.2
    image[0, 0, 14:18, 14:18] = -1
    image[0, 0, 0:3, 0:3] = 0.5
    head = heads_of(image)[0]
    assert head[15, 15]
    assert not head[:5, :5].any()
    assert boxes_of(head[None]).low.tolist() == [[8, 8]]


def test_slices_without_a_head_are_measured_too():
    empty = attrs.evolve(THIRD, images=np.full_like(THIRD.images, -1))
    found = figures(empty, draws=2)
    assert np.isnan([each.value for each in found.values()]).sum() == 0
    assert not found["head area, distance"].as_good


def test_a_stretched_head_keeps_a_linear_ramp():
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None], (1, 2, 40, 30)).copy()
    mask = np.zeros((1, 40, 30), bool)
    mask[0, 10:30, 5:25] = True
    assert boxed(ramp, boxes_of(mask), 10)[0, 1, :, 3] == pytest.approx(np.arange(10.5, 30, 2))


def test_the_same_seed_gives_the_same_figures_whatever_else_was_drawn():
    first = figures(THIRD, draws=5)
    np.random.default_rng(1).standard_normal(10)
    assert figures(THIRD, draws=5) == first


def test_several_channels_are_measured_together():
    sets = REAL, OTHER, THIRD
    both = [
        attrs.evolve(each, images=np.repeat(each.images, 2, 1), channels=("a", "b"))
        for each in sets
    ]
    found = anatomy.figures_of(*both, draws=2)
    assert [each.value for each in found] == pytest.approx(
        [each.value for each in figures(THIRD, draws=2).values()]
    )
