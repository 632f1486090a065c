"""A painter is given crops on its own grid, and only what it paints in the region comes into the host.

Covers: medgen.generation.insertion.painter, medgen.generation.insertion.painting, medgen.generation.insertion.paste.
"""

from __future__ import annotations

import numpy as np
import pytest

from medgen.data.grid import Grid
from medgen.data.store.crop_targets import grown
from medgen.generation.insertion.painting import Placed, fits, paint
from medgen.generation.insertion.paste import Paste
from medgen.generation.insertion.shapes import Patch

SHAPE = (30, 34, 20)
CENTRE = np.array([14, 16, 9])


def grid(size, mm):
    if len(size) == 2:
        return Grid.of_slices(size[0], mm, "axial")
    return Grid(size, (mm,) * 3, np.diag([mm, mm, mm, 1.0]))


class Bright:
    """Paints the value 0.9 everywhere, also where it must not, and keeps what it was given."""

    channels = ("flair",)

    def __init__(self, size=None, mm=1.0, margin=3.0):
        self.grid, self.margin = grid(size, mm) if size else None, margin
        self.crops, self.seeds = [], []

    def numbers(self, crops, seed):
        return {"contrast": seed}

    def paint(self, crops, seeds, numbers):
        assert numbers == {"contrast": seeds[0]}
        self.crops += crops
        self.seeds += seeds
        return [np.full_like(crop.image, 0.9) for crop in crops]


def ball(radius):
    side = 2 * radius + 3
    grid = np.indices((side,) * 3) - radius - 1
    return (grid**2).sum(0) <= radius**2


def host():
    rng = np.random.default_rng(0)
    return rng.uniform(0.2, 0.4, (1, *SHAPE)).astype(np.float32), np.ones(SHAPE, bool)


def painted(painter, spacing=(1.0, 1.0, 1.0), patch=None):
    images, head = host()
    before = images.copy()
    placed = Placed(patch or Patch(ball(3)), CENTRE)
    weight, _ = paint(images, head, spacing, placed, painter, seed=5)
    return before, images, weight, placed.mask(SHAPE)


@pytest.mark.parametrize("size", [None, (16, 16), (16, 16, 16)])
def test_the_lesion_is_what_was_painted_and_beyond_the_margin_nothing_changes(size):
    before, after, weight, lesion = painted(Bright(size))
    np.testing.assert_allclose(after[0][lesion], 0.9, atol=1e-6)
    region = grown(lesion, (1, 1, 1), 3.0)
    np.testing.assert_array_equal(after[0][~region], before[0][~region])
    np.testing.assert_array_equal(weight > 0, region)
    edge = region & ~grown(lesion, (1, 1, 1), 2.0)
    assert (
        np.abs(after[0][edge] - before[0][edge]).max() < 0.5 * np.abs(0.9 - before[0][edge]).max()
    )


def test_a_painter_of_slices_is_given_each_slice_of_a_lesion_with_one_seed():
    painter = Bright((16, 16))
    _, _, _, lesion = painted(painter)
    reach = int(np.count_nonzero(lesion.any((0, 1))))
    assert len(painter.crops) == reach == 7  # none of the margin alone
    assert painter.seeds == [5] * reach
    assert {crop.image.shape for crop in painter.crops} == {(1, 16, 16)}
    middle = painter.crops[reach // 2]
    before, _ = host()
    np.testing.assert_array_equal(middle.image, before[:, 6:22, 8:24, 9])
    np.testing.assert_array_equal(middle.mask, lesion[6:22, 8:24, 9])
    np.testing.assert_array_equal(middle.region, grown(middle.mask, (1, 1), 3.0))


def test_a_crop_beyond_the_edge_of_a_scan_is_filled_with_background():
    painter = Bright((40, 40))
    painted(painter)
    crop = painter.crops[0]
    assert crop.image.shape == (1, 40, 40)
    assert not crop.image[:, :6].any()
    assert not crop.region[:6].any()


@pytest.mark.parametrize("size", [(24, 24), (24, 24, 24)])
def test_a_painter_trained_at_another_spacing_gets_crops_of_that_spacing(size):
    spacing = (2.0,) * len(size)
    painter = Bright(size, 2.0)
    before, after, _, lesion = painted(painter, (1.0, 1.5, 2.0))
    assert {crop.spacing for crop in painter.crops} == {spacing}
    volume = lesion.sum() * 3.0
    shown = sum(crop.mask.sum() for crop in painter.crops) * 8.0
    assert shown == pytest.approx(volume, rel=0.25)
    np.testing.assert_allclose(after[0][lesion], 0.9, atol=1e-5)
    far = ~grown(lesion, (1.0, 1.5, 2.0), 3.0)
    np.testing.assert_array_equal(after[0][far], before[0][far])


def test_a_lesion_larger_than_the_crops_does_not_fit():
    assert fits(Bright((16, 16)), ball(3), (1.0, 1.0, 1.0))
    assert not fits(Bright((12, 12)), ball(3), (1.0, 1.0, 1.0))
    assert fits(Bright((12, 12), 2.0), ball(3), (1.0, 1.0, 1.0))
    assert fits(Bright(), ball(9), (1.0, 1.0, 1.0))


def test_no_voxel_outside_the_head_changes():
    images, head = host()
    head[:, :14] = False
    before = images.copy()
    paint(images, head, (1.0, 1.0, 1.0), Placed(Patch(ball(2)), CENTRE), Bright(), seed=0)
    np.testing.assert_array_equal(images[:, :, :14], before[:, :, :14])


@pytest.mark.parametrize("axes", [2, 3])
def test_a_pasted_lesion_stands_out_from_the_host_as_it_did_from_its_own(axes):
    mask = np.pad(ball(3), 6)
    own = np.where(mask, 0.95, 0.6).astype(np.float32)[None]
    paster = Paste(("flair",))
    if axes == 2:
        paster.grid = grid((24, 24), 1.0)
    before, after, _, lesion = painted(paster, patch=Patch(mask, own, np.ones_like(mask)))
    assert after[0][lesion].mean() - before[0].mean() == pytest.approx(0.35, abs=0.03)
    ring = grown(lesion, (1, 1, 1), 3.0) & ~grown(lesion, (1, 1, 1), 1.0)
    assert abs(after[0][ring].mean() - before[0][ring].mean()) < 0.02


def test_another_lesion_beside_the_donors_is_not_copied():
    mask = np.pad(ball(3), 6)
    other = np.zeros_like(mask)
    other[mask.shape[0] // 2 + 5 :] = True
    own = np.where(mask, 0.95, np.where(other, 5.0, 0.6)).astype(np.float32)[None]
    _, after, _, lesion = painted(Paste(("flair",)), patch=Patch(mask, own, ~other))
    assert after.max() < 1.1
    assert after[0][lesion].mean() > 0.6
