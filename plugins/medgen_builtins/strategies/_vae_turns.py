"""The two turns of strategy `vae`, each an `nn.Module` that owns exactly what its optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn
from torch.func import functional_call

from medgen import Autoencoder, AutoencoderLoss, CriticLoss, LossFunction, Turn
from medgen.api.values import AutoencoderPrediction, Batch, Clean, Mode, TurnOutput
from medgen_builtins._similarity import ssim
from medgen_builtins.losses.kl import divergence
from medgen_builtins.networks._norms import count_groups
from medgen_builtins.strategies._discriminator import Discriminator

HEAD = -0.95
"""Intensity of any channel of the real image above which a pixel belongs to the head."""
DEAD = 0.01
"""Nats per value below which a latent channel counts as dead."""
WON, WORSE, WINDOWS = 0.02, 1.1, 3
"""The discriminator has won if its loss is below WON and the reconstruction's above WORSE times its
best, in WINDOWS consecutive windows.
"""


class VaeDraws(NamedTuple):
    """Random numbers of a step. noise: `[batch, *latent]`. joined: `[batch]`, 1 once the
    discriminator takes part.
    """

    noise: Tensor
    joined: Tensor


class AutoencoderTurn(nn.Module, Turn):
    """The autoencoder's turn: reconstructs images, reads no condition."""

    name = "autoencoder"

    def __init__(
        self, mode: Mode, network: Autoencoder, losses: Mapping[str, LossFunction], start_step: int
    ):
        super().__init__()
        self.network, self.start_step = network, start_step
        self.losses = dict(
            cast("Mapping[str, AutoencoderLoss]", losses)
        )  # what else a recipe is refused for
        self.makes_masks = not mode.condition and not mode.pooled
        self._asked: tuple[nn.Module, ...] = ()
        # not in checkpoints: means are taken wherever a run stops, and a stop must change nothing there
        self._best, self._windows = math.inf, 0

    def ask(self, discriminator: nn.Module) -> None:
        """Use a discriminator, held in a tuple so that it is no submodule."""
        self._asked = (discriminator,)

    def draw(self, generator: torch.Generator, batch: Batch) -> VaeDraws:
        """Draw noise of the latents' shape, whether or not the discriminator takes part."""
        size, *space = batch.image.shape[0], *batch.image.shape[2:]
        shape = (
            size,
            self.network.latent_channels,
            *(length // self.network.factor for length in space),
        )
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return VaeDraws(noise, joined(size, self.step >= self.start_step, noise.device))

    def forward(
        self, batch: Batch, draws: VaeDraws, before: TurnOutput | None = None
    ) -> TurnOutput:
        """Return losses by name, each `[batch]`, for images in [-1, 1]."""
        mean, logvar = (each.float() for each in self.network.encode(batch.image))
        made = self.network.decode(mean + (0.5 * logvar).exp() * draws.noise).float()
        prediction = AutoencoderPrediction(made, mean, logvar, self._logits(made))
        original = Clean(batch.image.float())
        losses = {name: loss(prediction, original) for name, loss in self.losses.items()}
        critics = [name for name, loss in self.losses.items() if isinstance(loss, CriticLoss)]
        return TurnOutput(
            losses | {name: draws.joined * losses[name] for name in critics}, prediction, original
        )

    def _logits(self, image: Tensor) -> Tensor:
        """Return logits whose gradients reach the image, not the discriminator's weights."""
        for discriminator in self._asked:
            fixed = {name: each.detach() for name, each in discriminator.named_parameters()}
            return functional_call(discriminator, fixed, (image,)).float()  # type: ignore[no-any-return]
        return image.new_zeros(len(image), 0)

    def validation_metrics(
        self, output: TurnOutput, total: Tensor, truth: Tensor, lesion: Tensor | None
    ) -> list[tuple[str, Tensor]]:
        """Return the likeness of a sampled reconstruction, and statistics of its latents."""
        made = output.prediction.x0.clamp(-1, 1)
        error, head = made - truth, (truth > HEAD).any(1, keepdim=True).expand_as(truth)
        rows = [
            ("psnr/image", psnr(error.square().flatten(1).mean(1))),
            ("ssim", ssim(made, truth).flatten(1).mean(1)),
        ]
        rows += self._inside("psnr/head", error, head)
        if lesion is not None:
            lesion = lesion.expand(len(truth), *truth.shape[2:])
            absolute = error.abs().mean(1)
            rows += [("l1/lesion", absolute[lesion]), ("l1/outside", absolute[~lesion])]
            rows += [("dice", overlap(made, truth))] if self.makes_masks else []
        assert isinstance(output.prediction, AutoencoderPrediction)  # as `forward` gave it
        return rows + list(latents(output.prediction))

    def _inside(self, name: str, error: Tensor, region: Tensor) -> list[tuple[str, Tensor]]:
        """Return the PSNR in a region, of the samples that have the region."""
        pixels = region.flatten(1).sum(1)
        squared = (error.square() * region).flatten(1).sum(1)
        return [(name, psnr(squared[pixels > 0] / pixels[pixels > 0]))]

    def summarise(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Derive statistics of each latent channel from the means over the validation set."""
        kept = {
            name: value for name, value in metrics.items() if not name.startswith("latent/square_")
        }
        for name in metrics:
            if name.startswith("latent/square_"):
                mean = kept.pop(name.replace("square", "mean"))
                kept[name.replace("square", "scale")] = math.sqrt(max(metrics[name] - mean**2, 0.0))
        kl = [value for name, value in kept.items() if name.startswith("latent/kl_")]
        return kept | {"latent/dead": float(sum(each < DEAD for each in kl))}

    def warning(self, step: int, means: Mapping[str, float]) -> str | None:
        """Return a sentence, once, if the discriminator has won. means: since the last call."""
        parts = [
            name
            for name, loss in self.losses.items()
            if name != "kl" and not isinstance(loss, CriticLoss)
        ]
        if (
            not self._asked
            or step <= self.start_step
            or not parts
            or "loss/discriminator" not in means
        ):
            return None
        error, critic = sum(means[f"loss/{name}"] for name in parts), means["loss/discriminator"]
        self._best = min(self._best, error)
        self._windows += 1 if critic < WON and error > WORSE * self._best else -self._windows
        if self._windows != WINDOWS:
            return None
        return (
            f"step {step}: the discriminator has won: its loss is {critic:.2g}, the reconstruction's rose from "
            f"{self._best:.3g} to {error:.3g}. Lower losses.adversarial.weight or "
            "strategy.vae.discriminator.learning_rate."
        )


class DiscriminatorTurn(nn.Module, Turn):
    """The discriminator's turn: separates images from the previous turn's reconstructions."""

    name = "discriminator"

    def __init__(self, discriminator: nn.Module, loss: CriticLoss, options: Discriminator):
        super().__init__()
        self.discriminator, self.loss = discriminator, loss
        self.betas, self.rate, self.start_step = (
            options.betas,
            options.learning_rate,
            options.start_step,
        )

    def draw(self, generator: torch.Generator, batch: Batch) -> VaeDraws:
        """Return only whether the discriminator takes part."""
        size, device = batch.image.shape[0], generator.device
        return VaeDraws(
            torch.zeros(size, 0, device=device), joined(size, self.step >= self.start_step, device)
        )

    def forward(
        self, batch: Batch, draws: VaeDraws, before: TurnOutput | None = None
    ) -> TurnOutput:
        """Return the discriminator's loss; `before` is the autoencoder's output."""
        assert before is not None
        real, fake = (
            self.discriminator(each).float() for each in (batch.image.float(), before.prediction.x0)
        )
        return TurnOutput(
            {self.name: draws.joined * self.loss.critic(real, fake)},
            before.prediction,
            before.noisy,
        )

    def validation_metrics(
        self, output: TurnOutput, total: Tensor, truth: Tensor, lesion: Tensor | None
    ) -> list[tuple[str, Tensor]]:
        """Return nothing: the loss suffices."""
        return []


def make_discriminator(options: Discriminator, channels: int, shape: Sequence[int]) -> nn.Module:
    """Build MONAI's PatchDiscriminator as a module that returns only its logits."""
    norms = {
        "group": ("group", {"num_groups": count_groups([options.channels])}),
        "instance": ("instance", {"affine": True}),
    }

    class Logits(PatchDiscriminator):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = super().forward(x)[-1]
            return logits

    return Logits(
        spatial_dims=len(shape),
        in_channels=channels,
        channels=options.channels,
        num_layers_d=options.depth(min(shape)),
        norm=norms[options.norm],
    )


def joined(size: int, now: bool, device: torch.device) -> Tensor:
    """Return `[batch]`: 1 once the discriminator takes part, else 0."""
    return torch.full((size,), float(now), device=device)


def psnr(squared: Tensor) -> Tensor:
    """Return the PSNR in dB of mean squared errors, for values in a range of 2."""
    return 10 * torch.log10(4.0 / squared.clamp_min(1e-10))


def overlap(one: Tensor, two: Tensor) -> Tensor:
    """Return the Dice of masks thresholded at 0, `[batch]`; 1 for two empty masks."""
    one, two = (one > 0).flatten(1), (two > 0).flatten(1)
    total = one.sum(1) + two.sum(1)
    return torch.where(total > 0, 2 * (one & two).sum(1) / total.clamp_min(1), 1.0)


def latents(prediction: AutoencoderPrediction) -> list[tuple[str, Tensor]]:
    """Return mean, mean square and KL per channel; `conclude` makes scales of the first two."""
    mean, logvar, rows = prediction.mean, prediction.logvar, []
    kl, square = divergence(mean, logvar), mean.square() + logvar.exp()
    for channel in range(mean.shape[1]):
        for name, values in (("mean", mean), ("square", square), ("kl", kl)):
            rows.append((f"latent/{name}_{channel:02d}", values[:, channel].flatten(1).mean(1)))
    return rows
