"""Poisson blending: the donor's gradients inside, the host's values at the edge, of any number of axes."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.evaluation.blending import blend


def fields(shape, channels=1):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(channels, *shape)).astype(np.float32) for _ in range(2))


def ball(shape, radius):
    axes = np.indices(shape) - (np.array(shape).reshape(-1, *[1] * len(shape)) - 1) / 2
    return (axes**2).sum(0) < radius**2


@pytest.mark.parametrize("shape", [(20,), (20, 24), (12, 14, 10)])
def test_equation_7_holds_at_every_place_of_the_region(shape):
    host, donor = fields(shape, 2)
    region = ball(shape, 4.2)
    made = blend(host, donor, region).astype(np.float64)
    left = laplacian(made) - laplacian(donor.astype(np.float64))
    assert np.abs(left[:, region]).max() < 1e-4


def laplacian(values):
    """Sum over the neighbours of value less neighbour, `[channel, *space]`; the region is off the array's edge."""
    total = np.zeros_like(values)
    for axis in range(1, values.ndim):
        total += 2 * values - np.roll(values, 1, axis) - np.roll(values, -1, axis)
    return total


def test_outside_the_region_every_value_is_the_hosts():
    host, donor = fields((20, 24))
    region = ball((20, 24), 5)
    made = blend(host, donor, region)
    np.testing.assert_array_equal(made[:, ~region], host[:, ~region])
    np.testing.assert_array_equal(blend(host, donor, np.zeros_like(region)), host)


def test_a_donor_on_another_level_is_lifted_to_the_hosts():
    host = np.full((1, 16, 16, 16), 0.5, np.float32)
    region = ball((16, 16, 16), 5)
    spot = np.where(ball((16, 16, 16), 2), 0.3, 0.0).astype(np.float32)[None]
    np.testing.assert_allclose(blend(host, spot - 7, region), host + spot, atol=1e-4)


def test_a_neighbour_that_is_farther_away_counts_less():
    host = np.zeros((1, 15, 15), np.float32)
    host[:, :, [0, -1]] = 1  # left and right, 15 px apart, but each 10 mm
    region = np.ones((15, 15), bool)
    region[[0, -1]] = region[:, [0, -1]] = False
    near, far = (blend(host, host * 0, region, spacing)[0, 7, 7] for spacing in ((1, 1), (1, 10)))
    assert 0.4 < near < 0.6
    assert far < 0.05


def test_a_region_up_to_the_edge_of_the_array_is_filled_from_the_other_sides():
    host = np.full((1, 8, 8), 2.0, np.float32)
    region = np.zeros((8, 8), bool)
    region[:4] = True
    np.testing.assert_allclose(blend(host, np.zeros_like(host), region), host, atol=1e-4)


def test_air_beside_a_region_does_not_pull_it_down():
    host, donor = np.full((1, 16, 16), 0.6, np.float32), np.full((1, 16, 16), 0.2, np.float32)
    head = np.ones((16, 16), bool)
    head[:, 10:], host[:, :, 10:] = False, 0
    region = np.zeros((16, 16), bool)
    region[6:10, 6:10] = True
    np.testing.assert_allclose(blend(host, donor, region, head=head)[0][region], 0.6, atol=1e-5)
    assert blend(host, donor, region)[0][region].min() < 0.5  # what the head is for


def test_a_region_that_nothing_of_the_head_touches_is_the_donors():
    host, donor = np.zeros((1, 8, 8), np.float32), np.full((1, 8, 8), 0.2, np.float32)
    region = np.zeros((8, 8), bool)
    region[3:5, 3:5] = True
    made = blend(host, donor, region, head=np.zeros((8, 8), bool))
    np.testing.assert_allclose(made[0][region], 0.2, atol=1e-6)
