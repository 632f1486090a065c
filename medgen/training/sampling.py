"""Turn noise into images, for previews and `generate`, for every strategy and space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgen.api.interfaces import DiffusionStrategy, Space
from medgen.api.values import DrawNoise, Predict, Prediction
from medgen.training.lesion_region import Given
from medgen.training.number_channels import conditions
from medgen.training.tiles import Tiles, in_tiles

POOLS: Mapping[int, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    2: (functional.adaptive_max_pool2d, functional.max_pool2d),
    3: (functional.adaptive_max_pool3d, functional.max_pool3d),
}
"""By spatial axes."""
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
    place: Tensor | tuple[()] = (),
    tiles: Tiles | None = None,
    guidance: float | None = None,
    masks: Sequence[int] | None = None,
) -> Tensor:
    """Images `[batch, channel, *space]`, clamped to [-1, 1], for conditions `[batch, channel,
    *space]` in [-1, 1].

    Conditions may have no channels. `draw` gives standard normal noise of the space's shape,
    `[batch, *shape]`. given: what is known of the images, where only a region of them is made.
    numbers, place: `[batch, number]` and `[batch, 2, axis]`, as of `Batch`. tiles: see `predictor`.
    guidance: see `guided`; the strategy's own if it is None. None where a region alone is made.
    masks: the conditions that are masks, by which samples are guided; None: all.
    """
    with torch.no_grad():
        channels = conditions(space, condition, numbers, place)
        predict = predictor(strategy, network, channels, watch, given, tiles)
        weight = strategy.guidance if guidance is None else guidance
        guiding = [*range(condition.shape[1])] if masks is None else [*masks]
        if weight and guiding and given is None:
            empty = conditions(space, without_masks(condition, guiding), numbers, place)
            without = predictor(strategy, network, empty, None, tiles=tiles)
            near = around(condition[:, guiding], channels.shape[2:])
            predict = guided(predict, without, weight * near)
        z = strategy.sample(predict, draw(), steps or strategy.sampling_steps, draw)
        z = z if given is None else torch.where(given.region, z, given.z)
        return space.textured(space.decode(z), z, draw).clamp(-1, 1)


def predictor(
    strategy: DiffusionStrategy,
    network: nn.Module,
    condition: Tensor,
    watch: Watch | None,
    given: Given | None = None,
    tiles: Tiles | None = None,
) -> Predict:
    """Return `predict(xt, t)`, which reads as training does. condition: `[batch, channel, *space]`.

    The network sees what is given without noise, as in training, whatever the sampler makes of it.
    tiles: of the size that the network was trained on. At every time it predicts each of them, and
    the whole prediction is their weighted mean, as in MultiDiffusion (Bar-Tal et al. 2023, eq. 5,
    the weights being ramps): all tiles share one xt, so that samples have no seams.
    """

    def output(x: Tensor, times: Tensor) -> Tensor:
        if tiles is None or not tiles.divide(x.shape[2:]):
            made: Tensor = network(x, times)
            return made
        return in_tiles(lambda tile: network(tile, times), x, tiles)

    def predict(xt: Tensor, t: float) -> Prediction:
        if given is not None:
            xt = torch.where(given.region, xt, given.z)
        times = torch.full((xt.shape[0],), float(t), device=xt.device)
        seen = torch.cat([strategy.network_input(xt, times, condition), condition], dim=1)
        prediction = strategy.read(output(seen, times), xt, times, condition)
        if given is not None:
            prediction = prediction._replace(x0=torch.where(given.region, prediction.x0, given.z))
        if watch is not None:
            watch(float(t), prediction.x0)
        return prediction

    return predict


def without_masks(condition: Tensor, masks: Sequence[int]) -> Tensor:
    """Return conditions `[batch, channel, *space]` whose channels `masks` are empty."""
    empty = condition.clone()
    empty[:, list(masks)] = -1.0
    return empty


def around(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Return 1 in and next to lesions and 0 elsewhere, `[batch, 1, *size]`, of masks `[batch, mask,
    *space]` that are set where > 0, on the grid of a space.
    """
    shown = (masks > 0).any(1, keepdim=True).float()
    pool, largest = POOLS[len(size)]
    return largest(pool(shown, tuple(size)), 3, stride=1, padding=1)


def guided(predict: Predict, without: Predict, weight: Tensor) -> Predict:
    """Return classifier-free guidance, x0 + weight (x0 - x0 without) (Ho and Salimans 2022, eq. 6,
    which holds for x0 as for epsilon, as both are linear in each other).

    without: predicts for an empty mask, which training knows from slices without a lesion, so that
    no condition has to be dropped there. weight: `[batch, 1, *space]`, 0 where there is no lesion,
    so that all else is what the mask alone gives.
    """

    def both(xt: Tensor, t: float) -> Prediction:
        prediction = predict(xt, t)
        x0 = prediction.x0 + weight * (prediction.x0 - without(xt, t).x0)
        return prediction._replace(x0=x0)

    return both


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
