"""Binary cross-entropy of masks, as a function."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from medgen import HasImage


def cross_entropy(prediction: HasImage, noisy: HasImage) -> Tensor:
    """Return `[batch]`, fp32. As sigmoid(2 x0) = (1 + tanh(x0)) / 2, values and logits agree."""
    truth = (noisy.x0 > 0).float()
    each = binary_cross_entropy_with_logits(2 * prediction.x0.float(), truth, reduction="none")
    return each.flatten(1).mean(1)
