"""What a diffusion model minimises: the one small module that DDP and torch.compile wrap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from medgen.api.interfaces import DiffusionLoss, DiffusionStrategy, LossFunction, Space, Turn
from medgen.api.values import BINS, TIME_SCALE, Batch, Draws, Mode, Noisy, TurnOutput
from medgen.training import lesion_region
from medgen.training.number_channels import conditions


class Objective(nn.Module, Turn):
    """A diffusion strategy's one turn. Owns the network's parameters and draws nothing itself."""

    name = "network"

    def __init__(
        self,
        mode: Mode,
        space: Space,
        strategy: DiffusionStrategy,
        network: nn.Module,
        losses: Mapping[str, LossFunction],
    ):
        super().__init__()
        self.mode, self.space, self.strategy, self.network = mode, space, strategy, network
        self.losses = dict(cast("Mapping[str, DiffusionLoss]", losses))  # others are refused

    def draw(self, generator: torch.Generator, batch: Batch) -> Draws:
        """Timesteps and noise for a whole batch, on the generator's device; and the noise of a
        space that samples.
        """
        size, shape = batch.condition.shape[0], self.space.shape(batch.condition.shape[2:])
        draws = self.strategy.draw(generator, size, shape)
        if self.space.key is None:
            return draws
        return draws._replace(
            latent=torch.randn(size, *shape, generator=generator, device=generator.device)
        )

    def forward(self, batch: Batch, draws: Draws, before: TurnOutput | None = None) -> TurnOutput:
        """Losses by name, each `[batch]`, for images and conditions in [-1, 1]."""
        image, condition, numbers, place = batch  # no condition: zero channels
        region = lesion_region.region(self.mode, self.space, condition)
        x0 = self.space.encode(image, draws)
        noisy = region.noise_inside(self.strategy.corrupt(x0, draws))
        given = conditions(self.space, condition, numbers, place)
        seen = self.strategy.network_input(noisy.x, noisy.t, given)
        output = self.network(torch.cat([seen, given], dim=1), noisy.t)
        prediction = self.strategy.read(output, noisy.x, noisy.t, given)  # fp32
        prediction = region.truth_outside(prediction, noisy)
        losses = {name: region.mean(loss(prediction, noisy)) for name, loss in self.losses.items()}
        return TurnOutput(losses, prediction, noisy)

    def validation_metrics(
        self, output: TurnOutput, total: Tensor, truth: Tensor, lesion: Tensor | None
    ) -> list[tuple[str, Tensor]]:
        """Return the loss by time, and PSNR and error in lesions of the one-step estimate of x0.

        What is given of an image counts as right, so that there is no error outside lesions where
        only these are made.
        """
        rows = []
        assert isinstance(output.noisy, Noisy)  # as `forward` gave it
        bins = (output.noisy.t / TIME_SCALE * BINS).long().clamp(0, BINS - 1)
        for index in range(BINS):
            low, high = (int(edge * TIME_SCALE / BINS) for edge in (index, index + 1))
            rows.append((f"loss/val/t_{low:03d}_{high:04d}", total[bins == index]))
        estimate = self.space.decode(output.prediction.x0.float()).clamp(-1, 1)
        squared = (estimate - truth).square()
        rows.append(
            ("psnr/x0", 10 * torch.log10(4.0 / squared.flatten(1).mean(1).clamp_min(1e-10)))
        )
        if lesion is not None:
            squared, lesion = squared.mean(1), lesion.expand(truth.shape[0], *truth.shape[2:])
            rows.append(("mse/lesion", squared[lesion]))
            rows += [] if self.mode.margin else [("mse/outside", squared[~lesion])]
        return rows
