"""Binary cross-entropy of masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import HasImage, LossSettings, hookimpl, settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medgen.api.interfaces import LossFunction

medgen_api = 1


@settings
class Bce(LossSettings):
    """Binary cross-entropy of each pixel of a mask, where 2 x0 is the logit: 0 is undecided, as where masks are cut."""

    needs = ("x0",)

    def build(self, device: torch.device) -> LossFunction:
        return cross_entropy


def cross_entropy(prediction: HasImage, noisy: HasImage) -> Tensor:
    """`[batch]`, in fp32. sigmoid(2 x0) = (1 + tanh(x0)) / 2, so values and logits agree about every pixel."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    truth = (noisy.x0 > 0).float()
    each = binary_cross_entropy_with_logits(2 * prediction.x0.float(), truth, reduction="none")
    return each.flatten(1).mean(1)


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"bce": Bce}
