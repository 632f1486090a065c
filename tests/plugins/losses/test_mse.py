"""The mean squared error."""

from __future__ import annotations

import torch
from medgen_builtins.losses.mse import Mse

from medgen.api.values import Noisy, Prediction


def test_mean_over_each_sample() -> None:
    """One number per sample, in fp32, whatever the shape and precision of the target."""
    target = torch.zeros(3, 2, 4, 4, 4, dtype=torch.bfloat16)
    error = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1, 1).expand_as(target)
    one = torch.ones(3)
    noisy = Noisy(target, one, target, target, one, one)
    loss = Mse().build(torch.device("cpu"))(Prediction(error.bfloat16(), target), noisy)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, torch.tensor([0.0, 1.0, 4.0]))
