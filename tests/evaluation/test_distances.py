"""Distances equal plain implementations of their papers, and are what they promise.

Covers: medgen.evaluation.diversity.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import linalg, ndimage

from medgen.evaluation import diversity
from medgen.evaluation.distances import Kernels, fid, kid, manifold


def sets(n=23, m=31, d=6, shift=0.7):
    rng = np.random.default_rng([n, m, d])
    return rng.normal(size=(n, d)), rng.normal(shift, 1.4, size=(m, d))


def plain_kid(x, y):
    """Binkowski et al. 2018, eq. 4, as it is written."""

    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    xx = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    yy = [k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    return np.mean(xx) + np.mean(yy) - 2 * np.mean([k(a, b) for a in x for b in y])


def plain_fid(x, y):
    """Heusel et al. 2017, eq. 6, with a square root of a matrix."""
    one, two = np.cov(x.T), np.cov(y.T)
    root = linalg.sqrtm(one @ two).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(one + two - 2 * root)


def plain_manifold(real, made, k):
    """Kynkaanniemi et al. 2019, eq. 2; Naeem et al. 2020, eq. 3 and 4."""

    def radius(points, i):
        return sorted(
            np.linalg.norm(points[i] - other) for j, other in enumerate(points) if j != i
        )[k - 1]

    reaches = [radius(real, i) for i in range(len(real))]
    made_reaches = [radius(made, i) for i in range(len(made))]
    inside = [
        [np.linalg.norm(r - m) <= reach for m in made]
        for r, reach in zip(real, reaches, strict=True)
    ]
    recalled = [
        any(np.linalg.norm(r - m) <= s for m, s in zip(made, made_reaches, strict=True))
        for r in real
    ]
    return (
        np.mean([any(row[j] for row in inside) for j in range(len(made))]),
        np.mean(recalled),
        sum(map(sum, inside)) / (k * len(made)),
        np.mean([any(row) for row in inside]),
    )


@pytest.mark.parametrize(("n", "m", "d"), [(23, 31, 6), (12, 9, 40)])
def test_kid_equals_the_plain_formula(n, m, d):
    x, y = sets(n, m, d)
    assert kid(x, y) == pytest.approx(plain_kid(x, y), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 50, 6), (12, 9, 40), (50, 9, 20)])
def test_fid_equals_the_plain_formula_with_more_or_fewer_samples_than_features(n, m, d):
    x, y = sets(n, m, d)
    assert fid(x, y) == pytest.approx(plain_fid(x, y), rel=1e-5)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_recall_density_and_coverage_equal_the_plain_formulas(k):
    x, y = sets()
    assert manifold(x, y, k) == pytest.approx(plain_manifold(x, y, k), abs=1e-12)


def test_kid_of_two_sets_of_one_kind_is_zero_on_average():
    found = [kid(*np.split(np.random.default_rng(i).normal(size=(60, 4)), 2)) for i in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20


def test_slices_of_a_person_are_no_pairs_so_that_few_persons_are_not_far_from_others_of_their_kind():
    def of_persons(rng):
        return np.repeat(rng.normal(size=(6, 4)), 5, axis=0) + rng.normal(0, 0.1, size=(30, 4))

    people, found = np.repeat(np.arange(6), 5), []
    for number in range(200):
        rng = np.random.default_rng(number)
        x, y = of_persons(rng), of_persons(rng)
        found.append((kid(x, y, people, people), kid(x, y)))
    by_person, by_slice = np.mean(found, axis=0)
    assert abs(by_person) < 3 * np.std(found, axis=0)[0] / 200**0.5
    assert by_slice > 5 * abs(by_person)


def test_a_row_drawn_twice_counts_twice_and_is_no_pair_with_itself():
    x, y = sets(5, 7, 3)
    weights = np.array([2, 0, 1, 1, 1])
    rows = np.repeat(np.arange(5), weights)
    given = Kernels.of(x, y).kid(weights, np.ones(7))
    assert given == pytest.approx(kid(x[rows], y, people_x=rows), rel=1e-12)


def test_equal_sets_have_no_distance_and_cover_each_other():
    x, _ = sets()
    assert fid(x, x) == pytest.approx(0, abs=1e-9)
    assert manifold(x, x, 3)[:2] == (1, 1)


@pytest.mark.parametrize("distance", [kid, fid])
def test_a_distance_grows_with_the_shift_between_the_sets(distance):
    found = [distance(*sets(200, 200, 4, shift)) for shift in (0, 0.5, 1, 2)]
    assert all(a < b for a, b in itertools.pairwise(found))


def test_a_quarter_of_the_modes_dropped_lowers_recall_and_coverage_and_not_precision():
    rng = np.random.default_rng(0)
    centres = np.eye(8) * 9

    def drawn(modes):
        return np.concatenate([rng.normal(centre, 1, size=(40, 8)) for centre in centres[:modes]])

    real = drawn(8)
    found = [manifold(real, drawn(modes)) for modes in (8, 6, 4)]
    for name in ("recall", "coverage"):
        values = [getattr(each, name) for each in found]
        assert values[0] > values[1] + 0.1 > values[2] + 0.2
    assert min(each.precision for each in found) > found[0].precision - 0.1


# MS-SSIM


def plain_ms_ssim(one, two, weights):
    """Wang et al. 2003, eq. 7, on `[height, width]` in [-1, 1]: windows of 11 px, sigma 1.5, inside the image only."""
    total, c1, c2 = 1.0, (0.01 * 2) ** 2, (0.03 * 2) ** 2
    for scale, weight in enumerate(weights):

        def mean(image):
            return ndimage.gaussian_filter(image, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

        mu, nu = mean(one), mean(two)
        a, b, ab = mean(one * one) - mu**2, mean(two * two) - nu**2, mean(one * two) - mu * nu
        contrast = (2 * ab + c2) / (a + b + c2)
        value = (
            contrast * (2 * mu * nu + c1) / (mu**2 + nu**2 + c1)
            if scale == len(weights) - 1
            else contrast
        )
        total *= max(value.mean(), 0) ** weight
        one, two = (each.reshape(len(each) // 2, 2, -1, 2).mean((1, 3)) for each in (one, two))
    return total


@pytest.mark.parametrize("size", [64, 32])
def test_ms_ssim_equals_the_plain_formula_on_the_scales_that_fit(size):
    rng = np.random.default_rng(size)
    one = ndimage.gaussian_filter(rng.normal(size=(size, size)), 2).astype(np.float32)
    two = one + 0.3 * ndimage.gaussian_filter(rng.normal(size=(size, size)), 1).astype(np.float32)
    wanted = plain_ms_ssim(one.astype(float), two.astype(float), diversity.weights(size))
    assert diversity.ms_ssim(one[None, None], two[None, None])[0] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "scales"), [(256, 5), (176, 5), (175, 4), (64, 3), (16, 1), (8, 1)]
)
def test_small_images_have_fewer_scales_whose_weights_sum_to_one(size, scales):
    found = diversity.weights(size)
    assert len(found) == scales
    assert sum(found) == pytest.approx(1)
    image = np.random.default_rng(0).normal(size=(1, 1, size, size)).clip(-1, 1).astype(np.float32)
    assert diversity.ms_ssim(image, image)[0] == pytest.approx(1, abs=1e-5)
