"""What the diffusion strategies share: one turn, in which the network minimises the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from medgen import DiffusionStrategy, LossFunction, Mode, Space
from medgen.training.objective import Objective


class Diffusion(DiffusionStrategy):
    """See `DiffusionStrategy`."""

    def turns(
        self,
        mode: Mode,
        space: Space,
        network: nn.Module,
        losses: Mapping[str, LossFunction],
        device: torch.device,
    ) -> Sequence[Objective]:
        """Return one turn, the network's."""
        self.to(device)
        return [Objective(mode, space, self, network, losses)]

    def to(self, device: torch.device) -> None:
        """Move there what each step computes with, so that no step copies it."""
