"""Volumes are looked at as slices of three planes, evenly through each head."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from evaluation.made_up import volumes

from medgen.evaluation import comparison as persons
from medgen.evaluation import planes


def box(low=(2, 4, 6), high=(10, 12, 16)):
    """A volume with a head that is a box, brighter with each step along x, y and z."""
    place = np.indices((12, 16, 20))
    inside = np.all([(at >= a) & (at < b) for at, a, b in zip(place, low, high, strict=True)], 0)
    return np.where(inside, 0.01 * place.sum(0), -1).astype(np.float32)[None, None]


@pytest.mark.parametrize(
    ("axis", "expected"), [(0, [3, 5, 7, 9]), (1, [5, 7, 9, 11]), (2, [7, 9, 12, 14])]
)
def test_slices_lie_evenly_from_one_end_of_the_head_to_the_other(axis, expected):
    assert planes.places(box(), axis, 4).tolist() == [expected]
    cut = planes.taken(box(), axis, planes.places(box(), axis, 4))
    assert cut.shape == (4, 1, *np.delete((12, 16, 20), axis))
    for slice_, place in zip(cut, expected, strict=True):
        assert np.array_equal(slice_[0], box()[0, 0].take(place, axis))


def test_slices_are_samples_of_their_volumes_person_on_the_grid_of_their_plane():
    whole = volumes(3, first=5)
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        cut = planes.cut(whole, axis, 4)
        assert cut.people.tolist() == [5] * 4 + [6] * 4 + [7] * 4
        assert cut.grid.axis == plane
        assert cut.grid.spacing == (4.0, 4.0)
        assert cut.position[:4].tolist() == [0.125, 0.375, 0.625, 0.875]
        assert cut.names[0].startswith(f"patient 5, {plane} slice ")
        place = int(cut.names[5].split()[-1])
        assert np.array_equal(cut.images[5], whole.images[1].take(place, axis + 1))
        assert np.array_equal(cut.masks[5], whole.masks[1].take(place, axis))


class Mean:
    """An extractor: the mean and the highest value, less what it was taught."""

    def __init__(self):
        self.hash, self.taught = "none", 0.0

    def fit(self, images, people, position, seed):
        self.taught, self.hash = float(images.mean()), f"{len(images)} {position[0]:g} {seed}"

    def __call__(self, images):
        each = images.reshape(len(images), -1)
        return np.stack([each.mean(1), each.max(1)], 1).astype(np.float32)


def test_features_of_a_volume_are_those_of_its_slices_averaged_over_each_plane():
    extractor, images = planes.PlanesExtractor(Mean), volumes(2).images
    assert extractor.hash == "none"
    extractor.fit(images, np.arange(2), np.full(2, np.nan, np.float32), 7)
    assert extractor.hash == f"{2 * planes.SLICES} {0.5 / planes.SLICES:g} 7"
    found = extractor(images)
    assert found.shape == (2, 6)
    cut = planes.taken(images, 1, planes.places(images, 1, planes.SLICES))
    expected = Mean()(cut).reshape(2, planes.SLICES, 2).mean(1)
    assert np.array_equal(found[:, 2:4], expected)


def test_slices_keep_their_extractor_and_their_comparison():
    built = []
    settings = type("Any", (), {"build": lambda self, device: built.append(device) or Mean()})()
    assert isinstance(planes.extractor(settings, 2, "cpu"), Mean)
    assert isinstance(planes.extractor(settings, 3, "cpu"), planes.PlanesExtractor)
    assert len(built) == 4
    real, made = volumes(8), volumes(3, first=50, seed=1)
    comparison = persons.arrange(made, real, real, draws=4)
    found = dict(planes.views(comparison, 2))
    assert [*found] == [", sagittal slices", ", coronal slices", ", axial slices"]
    assert len(found[", axial slices"].made) == 6
    assert [len(each) for each in found[", axial slices"].halves] == [8, 8]
    flat = attrs.evolve(comparison, made=planes.cut(made, 2))
    assert dict(planes.views(flat)) == {"": flat}
