"""The radiomics extractor as a plugin.

Covers: medgen_builtins.features._radiomics, medgen_builtins.features.radiomics.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation import made_heads
from medgen_builtins.features.radiomics import Radiomics

from medgen import FeaturesSettings
from medgen.config.registry import Registry

REAL = made_heads.heads(range(6), slices=2)


def extractor(**settings):
    return Radiomics(**settings).build(torch.device("cpu"))


def fitted():
    own = extractor()
    own.fit(REAL.images, REAL.people, REAL.position, 0)
    return own


def test_it_is_registered_as_features():
    assert Registry.load().get("features", "radiomics").settings_class is Radiomics
    assert issubclass(Radiomics, FeaturesSettings)


def test_fitted_features_are_in_deviations_of_the_real_images():
    found = fitted()(REAL.images)
    assert found.dtype == np.float32
    assert found.shape == (12, 46)
    assert found.mean(0) == pytest.approx(0, abs=1e-4)
    assert np.isin(np.round(found.std(0), 2), (0, 1)).all()


def test_a_fault_moves_the_features_and_its_strength_does():
    own = fitted()
    spoilt = [
        np.abs(own(made_heads.noise(REAL, strength).images)).mean() for strength in (0, 0.3, 1)
    ]
    assert spoilt[0] < spoilt[1] < spoilt[2]


def test_slices_without_a_head_have_features_and_they_are_far_away():
    found = fitted()(np.full((2, 1, 48, 48), -1, np.float32))
    assert np.isfinite(found).all()
    assert np.abs(found).mean() > 2


def test_the_hash_names_the_settings():
    assert extractor().hash == extractor().hash
    assert extractor().hash != extractor(bin_width=0.25).hash
