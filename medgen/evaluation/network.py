"""A small network taught on the spot, by seed, leaving torch's global generators alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from medgen import seeds

WIDTHS = (16, 32, 64, 96)
"""Channels of each halving."""
GROUPS = 8
PART = 256
"""Images at a time where no gradient is needed."""


class Halvings(nn.Module):
    """Four convolutions that each halve the size, then the mean over space, then as many numbers as
    are asked for.
    """

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        levels = zip((channels, *WIDTHS[:-1]), WIDTHS, strict=True)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(GROUPS, after), nn.SiLU())
            for before, after in levels
        )
        self.head = nn.Linear(WIDTHS[-1], outputs)

    def pooled(self, x: Tensor) -> list[Tensor]:
        """Return the mean over space after each halving: `[n, width]` each."""
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x.mean((2, 3)))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return `[n, outputs]`."""
        out: Tensor = self.head(self.pooled(x)[-1])
        return out


def made(channels: int, outputs: int, seed: int, device: torch.device) -> Halvings:
    """Return a new network; its weights depend on the seed alone."""
    with seeds.seeded(seed):
        return Halvings(channels, outputs).to(device)


def teach(network: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Minimise what `loss` gives for a batch that it draws, with AdamW at a rate that rises and
    falls in one cycle.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 2))
    network.train()
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    network.eval()


def parts(images: np.ndarray, device: torch.device) -> Iterator[Tensor]:
    """Yield images `[n, c, h, w]` as tensors on the device, some at a time."""
    for start in range(0, len(images), PART):
        yield torch.from_numpy(np.ascontiguousarray(images[start : start + PART])).to(device)


def digest(state: dict[str, Tensor]) -> str:
    """Return the sha256 of names and values, the first 16 digits."""
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return found.hexdigest()[:16]
