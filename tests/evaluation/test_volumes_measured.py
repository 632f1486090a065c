"""What is measured of slices is measured of volumes: heads, intensities, lesions, textures, what lies outside.

Covers: medgen.evaluation.heads, medgen.evaluation.intensities.
"""

from __future__ import annotations

import itertools
from functools import partial

import attrs
import numpy as np
import pytest
import torch
from evaluation.made_up import volumes
from medgen_builtins.segmenters.small_unet import SmallUnet
from scipy import ndimage

from medgen.data.grid import Grid
from medgen.errors import PluginError
from medgen.evaluation import (
    anatomy,
    heads,
    intensities,
    lesions,
    radiomics,
    segmentation,
    textures,
)
from medgen.evaluation.lesion_outside_head import outside
from medgen.evaluation.obedience import dice

SIDE = 32
FROM_MIDDLE = np.indices((SIDE,) * 3) - (SIDE - 1) / 2


def ball(radius, centre=(0, 0, 0)):
    away = FROM_MIDDLE - np.reshape(centre, (3, 1, 1, 1))
    return (away**2).sum(0) < radius**2


def head(texture=0.05):
    rng = np.random.default_rng(0)
    return np.where(ball(12), 0.2 + texture * rng.normal(size=(SIDE,) * 3), -1).astype(np.float32)


def one(image, *masks, mm=2.0):
    """A volume as samples."""
    mask = np.any(masks, axis=0) if masks else np.zeros(image.shape, bool)
    grid = Grid.of_volumes(image.shape, mm)
    return attrs.evolve(volumes(1), images=image[None, None], masks=mask[None], grid=grid)


# Heads


def test_a_head_encloses_what_is_dark_in_it_and_is_the_largest_part():
    image = head()
    image[ball(4)] = -1
    image[:3, :3, :3] = 0.5
    found = heads.heads_of(image[None, None])[0]
    assert np.count_nonzero(found ^ ball(12)) < 0.02 * np.count_nonzero(ball(12))
    box = heads.boxes_of(found[None])
    assert (box.low.tolist(), box.high.tolist()) == ([[4, 4, 4]], [[28, 28, 28]])


def test_a_stretched_volume_is_interpolated_along_all_axes():
    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, 9, 12, 10)), 1)
    image = image.astype(np.float32)
    boxes = heads.Boxes(np.array([[1, 2, 3]]), np.array([[7, 12, 9]]))
    steps = (np.arange(6) + 0.5) / 6
    places = [low + (high - low) * steps - 0.5 for low, high in ((1, 7), (2, 12), (3, 9))]
    grid = np.meshgrid(*places, indexing="ij")
    expected = [ndimage.map_coordinates(each, grid, order=1) for each in image]
    assert heads.boxed(image[None], boxes, 6)[0] == pytest.approx(np.array(expected), abs=1e-5)


def test_the_volume_of_a_head_is_in_cubic_centimetres():
    found = dict(anatomy.measures(one(head(), mm=3.0), 0))
    assert "head area" not in found
    assert found["head volume"][0, 0] == pytest.approx(4 / 3 * np.pi * 3.6**3, rel=0.05)
    assert found["head shape"].shape == (1, 3)
    assert found["layout of the head"].shape == (1, 512)


def test_noise_and_spectrum_of_volumes_are_those_of_their_noise():
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 1, *(SIDE,) * 3)).astype(np.float32)
    everywhere = np.ones((1, *(SIDE,) * 3), bool)
    assert intensities.noise(noise, everywhere)[0, 0] == pytest.approx(0.1, rel=0.03)
    bands = intensities.spectrum(noise)
    assert bands.shape == (1, 16)
    assert 10 ** bands[0, 3:] == pytest.approx(0.01, rel=0.2)  # white


def test_the_axis_of_symmetry_may_be_any_of_three():
    half = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(SIDE,) * 3), 2)
    for axis in range(3):
        both = half + np.flip(half, axis)
        image = np.where(ball(12), 0.3 * both / both.std(), -1).clip(-0.8, 1).astype(np.float32)
        assert anatomy.mirror_axis(one(image)) == axis


# Lesions


def test_a_ball_has_its_volume_its_place_and_a_round_shape():
    found = lesions.lesions_of(one(head(), ball(5, (2, 0, 0))))
    assert found.count.tolist() == [1]
    assert found.size[0] == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.06)
    assert found.centre[0] == pytest.approx([0.5 + 2 / 24, 0.5, 0.5], abs=0.02)
    assert found.elongation[0] == pytest.approx(1, abs=0.05)
    assert found.solidity[0] > 0.78
    assert found.outside[0] == 0
    assert found.depth[0] == pytest.approx(10 / 12, abs=0.1)


def test_a_lesion_is_one_through_its_slices_and_contrast_is_to_what_is_around_it():
    image, mask = head(), np.zeros((SIDE,) * 3, bool)
    mask[12:20, 12:16, 12:16] = True
    mask[20, 16, 16] = True  # touches with a corner
    mask[8, 8, 20:22] = True
    image[mask] += 0.5
    found = lesions.lesions_of(one(image, mask))
    assert found.count.tolist() == [2]
    assert sorted(found.size) == [2 * 8.0, 129 * 8.0]
    assert found.contrast[:, 0] * image[
        heads.heads_of(image[None, None])[0]
    ].std() == pytest.approx([0.5, 0.5], abs=0.1)
    assert found.elongation[0] == pytest.approx(2.0, rel=0.1)


def test_figures_of_volumes_are_per_volume_and_in_cubic_millimetres():
    real, other, made = volumes(4), volumes(4, seed=1, first=10), volumes(4, seed=2, first=20)
    found = lesions.figures_of(real, other, made, draws=4)
    assert found[0].name == "lesions per volume"
    assert next(each for each in found if each.name == "lesion size").unit == "mm3"
    bare = attrs.evolve(made, masks=np.zeros_like(made.masks))
    assert lesions.lesions_of(bare).centre.shape == (0, 3)


@pytest.mark.parametrize(
    ("centre", "share"),
    [
        ((0, 0, 0), 0),
        ((6, -4, 3), 0),
        ((0, 0, 9.5), 0),  # at the top, where an axial slice shows little else
        ((8, 0, 0), 0),
        ((15, 0, 0), 1),
        ((0, 0, 15), 1),
        ((10, 10, 0), 1),
        ((0, -10, -10), 1),
    ],
)
@pytest.mark.parametrize("painted", [0.8, -1.0])
def test_a_lesion_lies_outside_of_the_head_or_in_it_wherever_it_is_painted(centre, share, painted):
    mask = ball(2.5, centre)
    image = np.where(mask, np.float32(painted), head())
    assert outside(image[None], mask) == pytest.approx(share, abs=0.3 if share else 0.02)


def test_noise_in_the_air_is_no_head():
    noise = np.random.default_rng(1).uniform(-1, -0.95, (SIDE,) * 3).astype(np.float32)
    mask = ball(2.5, (10, 10, 0))
    image = np.where(mask, np.float32(0.8), np.where(ball(12), head(), noise))
    assert outside(image[None], mask) > 0.75


# Textures


def volume_of_bins():
    x, y, z = np.indices((4, 5, 3))
    bins = (x * 7 + y * 3 + z * 5 + x * y) % 4
    bins[0, :2] = 0  # outside of the region
    return bins


def named(features):
    return {name: float(values[0]) for name, values in features}


def test_neighbours_of_a_volume_lie_in_thirteen_directions():
    bins = volume_of_bins()
    by_hand = []
    for step in itertools.product((-1, 0, 1), repeat=3):
        if step <= (0, 0, 0):
            continue
        pairs = []
        for place in np.argwhere(bins):
            there = place + step
            if (there >= 0).all() and (there < bins.shape).all() and bins[tuple(there)]:
                pairs += [(bins[tuple(place)], bins[tuple(there)])] * 2
        by_hand.append(np.mean([(a - b) ** 2 for a, b in pairs]))
    assert len(by_hand) == 13
    found = named(textures.co_occurrence(bins[None]))
    assert found["Contrast"] == pytest.approx(np.mean(by_hand), rel=1e-9)


def test_zones_of_a_volume_are_connected_through_its_slices():
    bins = volume_of_bins()
    sizes = []
    for level in range(1, 4):
        parts, count = ndimage.label(bins == level, np.ones((3, 3, 3)))
        sizes += np.bincount(parts.ravel())[1:].tolist() if count else []
    found = named(textures.size_zones(np.stack([bins, bins])))
    assert found["LargeAreaEmphasis"] == pytest.approx(np.mean(np.square(sizes)), rel=1e-9)
    assert found["ZonePercentage"] == pytest.approx(len(sizes) / np.count_nonzero(bins), rel=1e-9)


def test_features_of_a_volume_of_one_slice_thick_regions_are_finite():
    images = volumes(2).images
    rois = np.zeros(images[:, 0].shape, bool)
    rois[:, 4:9, 5:9, 7] = True
    assert np.isfinite(radiomics.features_of(images, rois, 1 / 8)).all()


# The segmenter


def test_every_other_crop_shows_a_lesion():
    image = torch.zeros(8, 1, 40, 48, 40)
    mask = torch.zeros_like(image)
    mask[:, :, 38, 1, 20] = 1
    image[:, :, 38, 1, 20] = 1
    cut, marked = segmentation.cropped(image, mask, torch.Generator().manual_seed(0))
    assert cut.shape == marked.shape == (8, 1, 32, 32, 32)
    assert torch.equal(cut, marked)
    assert marked[::2].flatten(1).sum(1).tolist() == [1] * 4
    small = segmentation.cropped(
        image[:, :, :16, :8, :8], mask[:, :, :16, :8, :8], torch.Generator()
    )
    assert small[0].shape == (8, 1, 16, 8, 8)


@pytest.mark.slow
def test_a_segmenter_of_volumes_finds_lesions_of_other_persons():
    settings = SmallUnet(channels=(8, 16))
    network = segmentation.train(settings, volumes(8, contrast=0.8), steps=150, seed=0)
    other = volumes(4, seed=1, contrast=0.8)
    assert dice(segmentation.predict(network, other.images), other.masks).mean() > 0.5


def test_the_same_seed_gives_the_same_segmenter_of_volumes_of_any_size():
    train = partial(segmentation.train, SmallUnet(channels=(4, 4)), volumes(3), steps=2)
    network, again, another = train(seed=0), train(seed=0), train(seed=1)
    weights = [
        torch.cat([each.detach().flatten() for each in made.parameters()])
        for made in (network, again, another)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    other = volumes(3, seed=1)
    odd = segmentation.predict(network, other.images[:, :, :13, :, :15])
    assert odd.shape == (3, 13, 16, 15)


def test_a_segmenter_of_slices_alone_is_named_in_one_line():
    class Flat:
        def build(self, in_channels):
            raise AssertionError("it is not built")

    with pytest.raises(PluginError, match=r"segmenters \(Flat\): its build failed with TypeError"):
        segmentation.train(Flat(), volumes(2), steps=1, seed=0)


def test_volumes_are_changed_along_all_axes_and_masks_with_them():
    image, mask = torch.from_numpy(volumes(8).images), torch.from_numpy(volumes(8).masks)[:, None]
    changed, moved = segmentation.augmented(image, mask.float(), torch.Generator().manual_seed(1))
    assert changed.shape == image.shape
    assert changed.min() >= -1
    ways = {
        flips
        for one, two in zip(mask.float(), moved, strict=True)
        for count in range(4)
        for flips in itertools.combinations((1, 2, 3), count)
        if torch.equal(one.flip(flips), two)
    }
    assert {axis for flips in ways for axis in flips} == {1, 2, 3}


def test_of_large_slices_crops_are_cut_too_and_show_their_lesions():
    image, mask = torch.zeros(8, 2, 96, 80), torch.zeros(8, 1, 96, 80)
    mask[:, :, 90:93, 3:6] = 1
    cut, marked = segmentation.cropped(image, mask, torch.Generator().manual_seed(0))
    assert (cut.shape, marked.shape) == ((8, 2, 64, 64), (8, 1, 64, 64))
    assert (marked[::2].flatten(1).sum(1) == 9).all()
