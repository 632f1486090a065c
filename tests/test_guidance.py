"""Classifier-free guidance by the mask.

Covers: medgen.training.sampling.
"""

from __future__ import annotations

import pytest
import torch

from medgen.api.values import Prediction
from medgen.training import sampling


def test_guidance_takes_the_prediction_further_from_that_for_an_empty_mask():
    """Ho and Salimans 2022, equation 6: (1 + w) of one less w of the other."""
    one, other = torch.full((2, 1, 4, 4), 0.5), torch.full((2, 1, 4, 4), 0.2)
    seen = []

    def without(xt, t):
        seen.append((xt, t))
        return Prediction(other, other)

    predict = sampling.guided(lambda xt, t: Prediction(one, one), without, torch.tensor(2.0))
    xt = torch.zeros_like(one)
    made = predict(xt, 300.0)
    assert torch.allclose(made.x0, 3 * one - 2 * other)
    assert torch.equal(made.target, one)
    assert [(each is xt, t) for each, t in seen] == [(True, 300.0)]


@pytest.mark.parametrize("axes", [2, 3])
def test_guidance_is_limited_to_lesions_and_what_is_next_to_them(axes):
    masks = torch.full((1, 2, *(16,) * axes), -1.0)
    masks[(0, 1, *(5,) * axes)] = 1.0
    where = sampling.around(masks, (4,) * axes)  # a grid of 4 x 4 px
    assert where.shape == (1, 1, *(4,) * axes)
    expected = torch.zeros((4,) * axes)
    expected[(slice(0, 3),) * axes] = 1
    assert torch.equal(where[0, 0], expected)
