"""Noise to images, for previews and for `generate`: the same few lines for every strategy and
space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from medgen.api.interfaces import DiffusionStrategy, Space
from medgen.api.values import DrawNoise, Predict, Prediction
from medgen.training.lesion_region import Given
from medgen.training.number_channels import conditions

Watch = Callable[[float, Tensor], None]
"""Is told the time (1000 to 0) and the estimate of x0 in the space, at every evaluation of the
network.
"""


def sample(
    strategy: DiffusionStrategy,
    space: Space,
    network: nn.Module,
    condition: Tensor,
    draw: DrawNoise,
    steps: int | None = None,
    watch: Watch | None = None,
    given: Given | None = None,
    numbers: Tensor | tuple[()] = (),
) -> Tensor:
    """Images `[batch, channel, *space]`, clamped to [-1, 1], for conditions `[batch, channel,
    *space]` in [-1, 1].

    Conditions may have no channels. `draw` gives standard normal noise of the space's shape,
    `[batch, *shape]`. given: what is known of the images, where only a region of them is made.
    numbers: `[batch, number]`, as of `Batch`.
    """
    with torch.no_grad():
        channels = conditions(space, condition, numbers)
        predict = predictor(strategy, network, channels, watch, given)
        z = strategy.sample(predict, draw(), steps or strategy.sampling_steps, draw)
        return space.decode(z if given is None else torch.where(given.region, z, given.z)).clamp(
            -1, 1
        )


def predictor(
    strategy: DiffusionStrategy,
    network: nn.Module,
    condition: Tensor,
    watch: Watch | None,
    given: Given | None = None,
) -> Predict:
    """`predict(xt, t)` through the same `read` as training. condition: in the space, `[batch,
    channel, *space]`.

    The network sees what is given without noise, as in training, whatever the sampler makes of it.
    """

    def predict(xt: Tensor, t: float) -> Prediction:
        if given is not None:
            xt = torch.where(given.region, xt, given.z)
        times = torch.full((xt.shape[0],), float(t), device=xt.device)
        prediction = strategy.read(network(torch.cat([xt, condition], dim=1), times), xt, times)
        if given is not None:
            prediction = prediction._replace(x0=torch.where(given.region, prediction.x0, given.z))
        if watch is not None:
            watch(float(t), prediction.x0)
        return prediction

    return predict


def noise(
    generators: Sequence[torch.Generator], shape: Sequence[int], device: torch.device
) -> DrawNoise:
    """Draws `[len(generators), *shape]`, each sample from its own generator, so that none depends
    on its neighbours.
    """

    def draw() -> Tensor:
        return torch.stack([torch.randn(tuple(shape), generator=each) for each in generators]).to(
            device
        )

    return draw


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 where the run computes in it; weights, losses and schedules stay fp32."""
    return torch.autocast(
        device.type, torch.bfloat16, enabled={"bf16": True, "fp32": False}[precision]
    )


@contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, and back."""
    was = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was)
