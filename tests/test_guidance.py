"""Classifier-free guidance by the mask.

Covers: medgen.training.sampling.
"""

from __future__ import annotations

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

    predict = sampling.guided(lambda xt, t: Prediction(one, one), without, 2.0)
    xt = torch.zeros_like(one)
    made = predict(xt, 300.0)
    assert torch.allclose(made.x0, 3 * one - 2 * other)
    assert torch.equal(made.target, one)
    assert [(each is xt, t) for each, t in seen] == [(True, 300.0)]
