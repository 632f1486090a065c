"""Radiomics features against numpyradiomics 0.0.5, whose values for these slices are in `radiomics_oracle.json`.

Covers: medgen.evaluation.radiomics, medgen.evaluation.textures.
"""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest
from evaluation import made_heads

from medgen.evaluation import radiomics

WIDTH = 1 / 8
FUNCTIONS = {"first order": "firstorder", "GLCM": "glcm", "GLSZM": "glszm"}
REAL, OTHER, THIRD = (
    made_heads.heads(range(16 * part, 16 * part + 16), slices=2) for part in range(3)
)


def slices():
    """Textures of whole numbers, so that no random generator decides them, and regions full of holes."""
    x, y = np.mgrid[:18, :14]
    textures = [
        (x * 7 + y * 13 + x * y * 3) % 23,
        (x * x + 5 * y) % 17,
        x + y,
        (x // 4 * 5 + y // 3 * 7) % 11,
    ]
    images = np.stack(textures).astype(np.float32) / 16 - 0.7421875
    rois = np.stack([(x * 3 + y * 5 + number) % 7 > number for number in range(4)])
    return images, rois


def oracle():
    return json.loads((Path(__file__).parent / "radiomics_oracle.json").read_text())


def own():
    images, rois = slices()
    found = radiomics.features_of(images[:, None], rois, WIDTH)
    return [
        {f"{family} {name}": row[place] for place, (family, name) in enumerate(radiomics.NAMES)}
        for row in found
    ]


def test_every_feature_is_that_of_numpyradiomics():
    for found, expected in zip(own(), oracle(), strict=True):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.slow
def test_the_stored_values_are_those_that_numpyradiomics_gives_now():
    oracle_package = pytest.importorskip("numpyradiomics")
    for image, roi, expected in zip(*slices(), oracle(), strict=True):
        for family, function in FUNCTIONS.items():
            given = getattr(oracle_package, function)(image.astype(np.float64), roi, binWidth=WIDTH)
            names = [name for of, name in radiomics.NAMES if of == family]
            stored = [expected[f"{family} {name}"] for name in names]
            assert [given[name] for name in names] == pytest.approx(stored, rel=1e-9, abs=1e-12)


def test_slices_are_measured_alike_alone_and_together():
    images, rois = slices()
    alone = [
        radiomics.features_of(images[[number], None], rois[[number]], WIDTH)[0]
        for number in range(4)
    ]
    together = radiomics.features_of(images[:, None], rois, WIDTH)
    assert together == pytest.approx(np.array(alone), rel=1e-9)


def test_a_region_that_is_empty_has_no_features_and_one_pixel_has_no_neighbours():
    images, rois = slices()
    rois[0], rois[1] = False, False
    rois[1, 3, 3] = True
    found = radiomics.features_of(images[:, None], rois, WIDTH)
    family = np.array([of for of, _ in radiomics.NAMES])
    assert np.isnan(found[0]).all()
    assert np.isnan(found[1, family == "GLCM"]).all()
    assert not np.isnan(found[1, family == "GLSZM"]).any()


def test_each_channel_has_its_own_features():
    images, rois = slices()
    both = radiomics.features_of(np.stack([images, images[::-1]], 1), rois, WIDTH)
    assert both.shape == (4, 2 * len(radiomics.NAMES))
    assert both[:, : len(radiomics.NAMES)] == pytest.approx(
        radiomics.features_of(images[:, None], rois, WIDTH), rel=1e-12
    )


def test_other_real_persons_are_not_flagged():
    assert [
        each.name for each in radiomics.figures_of(REAL, OTHER, THIRD, draws=60) if not each.as_good
    ] == []


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (made_heads.noise, "GLCM of the head, distance"),
        (made_heads.gamma, "first order of the head, distance"),
        (made_heads.shrunk_contrast, "first order of the lesion, distance"),
    ],
)
def test_a_fault_is_seen_and_the_more_so_the_stronger_it_is(fault, name):
    sets = [
        {
            each.name: each
            for each in radiomics.figures_of(REAL, OTHER, fault(THIRD, strength), draws=20)
        }
        for strength in (0, 0.3, 1)
    ]
    assert (np.diff([figures[name].value for figures in sets]) > 0).all()
    assert not sets[-1][name].as_good


def test_lesions_are_left_out_of_the_head():
    assert not (radiomics.rois_of(REAL, "head") & REAL.masks).any()
    bare = attrs.evolve(REAL, masks=np.zeros_like(REAL.masks))
    assert radiomics.rois_of(bare, "head").sum() > radiomics.rois_of(REAL, "head").sum()
