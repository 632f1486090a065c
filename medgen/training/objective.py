"""What a diffusion model minimises: the one small module that DDP and torch.compile wrap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from medgen.api.interfaces import Batch, DiffusionStrategy, Draws, LossFunction, Mode, Space, TurnOutput


class Objective(nn.Module):
    """The one turn of a diffusion strategy. It owns the network's parameters and draws nothing itself."""

    name = "network"
    betas = (0.9, 0.999)
    step = 0

    def __init__(
        self,
        mode: Mode,
        space: Space,
        strategy: DiffusionStrategy,
        network: nn.Module,
        losses: Mapping[str, LossFunction],
    ):
        super().__init__()
        self.mode, self.space, self.strategy, self.network, self.losses = mode, space, strategy, network, dict(losses)

    def draw(self, generator: torch.Generator, batch: Batch) -> Draws:
        """Timesteps and noise for a whole batch, on the generator's device; and the noise of a space that samples."""
        size, shape = batch.condition.shape[0], self.space.shape(batch.condition.shape[2:])
        draws = self.strategy.draw(generator, size, shape)
        if not hasattr(self.space, "calibrate"):
            return draws
        return draws._replace(latent=torch.randn(size, *shape, generator=generator, device=generator.device))

    def forward(self, batch: Batch, draws: Draws, before: TurnOutput | None = None) -> TurnOutput:
        """Losses by name, each `[batch]`, for images and conditions in [-1, 1]."""
        image, condition = batch  # no condition: zero channels
        noisy = self.strategy.corrupt(self.space.encode(image, draws), draws)
        output = self.network(torch.cat([noisy.x, self.space.condition(condition)], dim=1), noisy.t)
        prediction = self.strategy.read(output, noisy.x, noisy.t)  # fp32: in the target's units, and x0
        return TurnOutput({name: loss(prediction, noisy) for name, loss in self.losses.items()}, prediction, noisy)


def detach(step: TurnOutput) -> TurnOutput:
    """The result of a turn as the next turn may see it: without a graph."""

    def free(values: Any) -> Any:
        return type(values)(*(each.detach() for each in values))

    return TurnOutput(
        {name: each.detach() for name, each in step.losses.items()}, free(step.prediction), free(step.noisy)
    )
