"""Adversarial losses (least squares: Mao et al. 2017; hinge: Lim and Ye 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from medgen import AutoencoderPrediction, Clean, CriticLoss, LossSettings, field, hookimpl, settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

medgen_api = 1


@settings
class Adversarial(LossSettings):
    """Adversarial loss of the discriminator `[strategy.vae.discriminator]` on the reconstruction."""

    form: Literal["least_squares", "hinge"] = field(
        "least_squares", help="form of the loss; hinge has the stronger gradient"
    )

    needs = ("logits",)

    def build(self, device: torch.device) -> LeastSquares | Hinge:
        return LeastSquares() if self.form == "least_squares" else Hinge()


class LeastSquares(CriticLoss):
    """Real is 1, fake is 0 (Mao et al. 2017, equation 9)."""

    def __call__(self, prediction: AutoencoderPrediction, noisy: Clean) -> Tensor:
        """Return the generator's loss, `[batch]`, fp32."""
        return (prediction.logits.float() - 1).square().flatten(1).mean(1)

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's loss for its logits of real and fake images, `[batch]`, fp32;
        0.25 at chance.
        """
        each = (real.float() - 1).square().flatten(1).mean(1) + fake.float().square().flatten(
            1
        ).mean(1)
        return 0.5 * each


class Hinge(CriticLoss):
    """Real is above 1, fake below -1 (Lim and Ye 2017, section 2)."""

    def __call__(self, prediction: AutoencoderPrediction, noisy: Clean) -> Tensor:
        """Return the generator's loss, `[batch]`, fp32."""
        return -prediction.logits.float().flatten(1).mean(1)

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's loss for its logits of real and fake images, `[batch]`, fp32;
        1 at chance.
        """
        each = (1 - real.float()).relu().flatten(1).mean(1) + (1 + fake.float()).relu().flatten(
            1
        ).mean(1)
        return 0.5 * each


@hookimpl
def medgen_losses() -> dict[str, type]:
    return {"adversarial": Adversarial}
