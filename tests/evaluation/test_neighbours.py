"""Volumes whose slices follow each other pass, and stacks of unrelated slices fail, plane by plane."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from evaluation.made_up import volumes
from scipy import ndimage

from medgen.evaluation import neighbours, verdict
from medgen.evaluation.figures import Figure

REAL, OTHER, THIRD = (volumes(12, 20, seed=seed, first=100 * seed) for seed in range(3))


def figures(samples):
    return neighbours.figures_of(REAL, OTHER, samples, draws=60)


def stacked(samples, axis):
    """Volumes of the slices of other persons, each at its place across an axis of space."""
    images = np.empty_like(samples.images)
    for number in range(len(images)):
        for place in range(images.shape[axis + 2]):
            where = (slice(None),) * (axis + 1) + (place,)
            images[number][where] = samples.images[(number + place) % len(images)][where]
    return attrs.evolve(samples, images=images)


def test_volumes_of_other_persons_pass_in_every_plane():
    found = figures(THIRD)
    assert [each.name for each in found] == [
        f"correlation of {plane} slices" for plane in ("sagittal", "coronal", "axial")
    ]
    assert neighbours.torn(found) == []
    assert all(0.5 < each.value < 1 for each in found)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stacked_slices_of_unrelated_heads_fail_in_the_plane_that_they_were_made_in(axis):
    found = neighbours.torn(figures(stacked(THIRD, axis)))
    assert figures(THIRD)[axis].name in [each.name for each in found]
    torn = next(each for each in found if each.name == figures(THIRD)[axis].name)
    assert torn.value < (1 - neighbours.WITHIN) * torn.reference
    assert torn.value < 0.5


def test_volumes_that_are_too_smooth_fail_in_every_plane():
    smooth = ndimage.gaussian_filter(THIRD.images, (0, 0, 1.5, 1.5, 1.5))
    head = THIRD.images > -1
    found = figures(attrs.evolve(THIRD, images=np.where(head, smooth, -1).astype(np.float32)))
    assert len(neighbours.torn(found)) == 3


def test_the_correlation_is_that_of_the_slices_within_the_head():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 40, 40, 30))
    walk = [noise[..., 0]]
    for place in range(1, 30):  # an autoregressive process: neighbours correlate by 0.8
        walk.append(0.8 * walk[-1] + 0.6 * noise[..., place])
    images = np.full((1, 2, 44, 44, 34), -1, np.float32)
    images[0, :, 2:42, 2:42, 2:32] = np.clip(0.1 * np.stack(walk, -1), -0.6, 0.8)
    across = [neighbours.correlations(images, axis)[0] for axis in range(3)]
    assert across[2] == pytest.approx([0.8, 0.8], abs=0.02)
    assert np.abs(across[:2]).max() < 0.1


def test_volumes_without_a_head_have_no_correlation():
    assert np.isnan(neighbours.correlations(np.full((1, 1, 8, 8, 8), -1, np.float32), 0)).all()


def test_slices_have_no_neighbours():
    flat = attrs.evolve(THIRD, images=THIRD.images[..., 0], masks=THIRD.masks[..., 0])
    assert neighbours.figures_of(flat, flat, flat) == []


def test_torn_volumes_are_called_far_from_real_however_near_their_features_are():
    kid = Figure("features: atlas", "KID", 0.1, -0.2, 0.4, 0.0, -1.0, 1.0, better="low")
    settings = type("Any", (), {"anatomy": True})()
    torn = Figure(neighbours.SECTION, "correlation of axial slices", 0.3, 0.2, 0.4, 0.9, 0.88, 0.92)
    assert verdict.judge([kid], {"atlas": settings}).word == "like real patients"
    found = verdict.judge([kid, torn], {"atlas": settings})
    assert found.word == "far from real"
    assert "correlation of axial slices 0.30 beside 0.90" in found.text
