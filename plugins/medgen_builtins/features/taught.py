"""Features of a network taught on the spot from the real heads alone: what it knows is anatomy, not photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medgen import Extractor, FeaturesSettings, field, ge, gt, hookimpl, settings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from medgen.evaluation.network import Halvings

medgen_api = 1

RATE = 4e-3
POSITION, NOISE = 0.3, 0.1
"""Spread of the place in the head (0 to 1) and of the noise, by which errors are divided."""
FLOOR = 0.1
"""Of the spread of a feature, as a share of the median one: what hardly ever varies must not decide."""
FARTHEST = 5.0
"""Standard deviations at which a feature is cut, as the kernel takes the third power."""


@settings
class Taught(FeaturesSettings):
    """Four halvings taught on real heads to tell the place of a slice, up from down, and how much noise was added."""

    steps: int = field(700, help="training steps", check=ge(1))
    batch_size: int = field(64, help="slices of a step", check=gt(0))
    noise: float = field(0.3, help="largest standard deviation of the noise added, of a range of 2", check=gt(0))

    anatomy = True

    def build(self, device: torch.device) -> Extractor:
        return _Extractor(self, device)


class _Extractor(Extractor):
    hash = ""

    def __init__(self, chosen: Taught, device: torch.device):
        self._chosen, self._device = chosen, device

    def fit(self, images: np.ndarray, people: np.ndarray, position: np.ndarray, seed: int) -> None:
        import torch

        from medgen.evaluation.network import digest, made, teach

        self._network = made(images.shape[1], 3, seed, self._device)
        batches = _Batches(self._chosen, images, position, torch.Generator().manual_seed(seed), self._device)
        teach(self._network, lambda: batches.loss(self._network), self._chosen.steps, RATE)
        found = self._pooled(images)
        self._mean, spread = found.mean(axis=0), found.std(axis=0)
        self._spread = (spread**2 + (FLOOR * float(sorted(spread)[len(spread) // 2])) ** 2) ** 0.5
        self.hash = digest(self._network.state_dict())

    def __call__(self, images: np.ndarray) -> np.ndarray:
        found: np.ndarray = ((self._pooled(images) - self._mean) / self._spread).clip(-FARTHEST, FARTHEST)
        return found

    def _pooled(self, images: np.ndarray) -> np.ndarray:
        import numpy as np
        import torch

        from medgen.evaluation.network import parts

        with torch.no_grad():
            found = [torch.cat(self._network.pooled(part)[-2:], dim=1) for part in parts(images, self._device)]
        return np.asarray(torch.cat(found).cpu().numpy(), np.float32)


class _Batches:
    """Draws slices, turns half of them upside down and adds noise; knows the answers."""

    def __init__(
        self, chosen: Taught, images: np.ndarray, position: np.ndarray, generator: torch.Generator, device: torch.device
    ):
        import torch

        self._chosen, self._generator, self._device = chosen, generator, device
        self._images, self._position = torch.from_numpy(images), torch.from_numpy(position)

    def loss(self, network: Halvings) -> Tensor:
        """Return the sum of three losses: place and noise, squared and in units of their spread; up from down."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

        count = self._chosen.batch_size
        rows = torch.randint(len(self._images), (count,), generator=self._generator)
        down, mirrored, level = torch.rand(3, count, generator=self._generator)
        x = _turned(_turned(self._images[rows], down < 0.5, -1), mirrored < 0.5, -2)
        level = level * self._chosen.noise
        x = x + level[:, None, None, None] * torch.randn(x.shape, generator=self._generator)
        place, turned, noise = network(x.to(self._device)).cpu().unbind(1)
        position = self._position[rows]
        known = ~position.isnan()
        off = torch.where(known, place - (position.nan_to_num(0.5) - 0.5) / POSITION, 0)
        lost = off.square().sum() / known.sum().clamp(min=1)
        return lost + cross_entropy(turned, (down < 0.5).float()) + (noise - level / NOISE).square().mean()


def _turned(x: Tensor, which: Tensor, axis: int) -> Tensor:
    """Flip those of `x` `[n, c, x, y]` that are named."""
    import torch

    return torch.where(which[:, None, None, None], x.flip(axis), x)


@hookimpl
def medgen_features() -> dict[str, type]:
    return {"taught": Taught}
