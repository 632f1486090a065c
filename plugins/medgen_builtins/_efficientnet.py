"""The first stages of EfficientNet-lite0 (Tan and Le 2019), as functions of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, pad, relu6

from medgen.errors import CheckpointError, Problem

BLOCKS = ((0, 1), (1, 2), (2, 1), (3, 2), (4, 1), (5, 2), (6, 1), (7, 1), (8, 1), (9, 1), (10, 1))
"""Blocks of the first five stages and their strides (Tan and Le 2019, table 1)."""
TAPS = (0, 2, 4, 10)
"""Blocks whose output is compared: at a half, a quarter, an eighth and a sixteenth of the size."""
EPSILON = 1e-3


class EfficientNet:
    """Frozen; gradients flow through it. Not a module, so no state of a run holds its weights."""

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device):
        names = [name for name in weights if not name.endswith("num_batches_tracked")]
        self.weights = {name: weights[name].to(device, torch.float32) for name in names}
        missing = [
            name
            for name in ("_conv_stem.weight", "_blocks.10._bn2.weight")
            if name not in self.weights
        ]
        if missing:
            raise CheckpointError(
                Problem(
                    "losses.perceptual",
                    f"the weights have no {missing[0]}",
                    "Give those of an EfficientNet-lite0",
                )
            )

    def distance(self, one: Tensor, two: Tensor) -> Tensor:
        """Return `[batch]`, fp32, for images `[batch, channel, height, width]` in [-1, 1] (Zhang
        2018, eq. 1, w = 1).
        """
        with torch.autocast(one.device.type, enabled=False):
            pairs = zip(self.features(one.float()), self.features(two.float()), strict=True)
            distances = [(_unit(a) - _unit(b)).square().sum(1).flatten(1).mean(1) for a, b in pairs]
            return torch.stack(distances).mean(0).view(len(one), -1).mean(1)

    def features(self, image: Tensor) -> Iterator[Tensor]:
        """Yield `[batch * channel, feature, height, width]` at each tap."""
        grey = image.flatten(0, 1)[:, None]
        x = self._norm(
            "_bn0", _same(grey.expand(-1, 3, -1, -1), self.weights["_conv_stem.weight"], 2)
        )
        x = relu6(x)
        for block, stride in BLOCKS:
            x = self._block(f"_blocks.{block}", x, stride)
            if block in TAPS:
                yield x

    def _block(self, name: str, x: Tensor, stride: int) -> Tensor:
        """Return an inverted residual (Sandler et al. 2018, figure 3)."""
        weights, inside = self.weights, x
        if f"{name}._expand_conv.weight" in weights:
            inside = relu6(
                self._norm(f"{name}._bn0", conv2d(x, weights[f"{name}._expand_conv.weight"]))
            )
        depthwise = weights[f"{name}._depthwise_conv.weight"]
        inside = relu6(self._norm(f"{name}._bn1", _same(inside, depthwise, stride, len(depthwise))))
        out = self._norm(f"{name}._bn2", conv2d(inside, weights[f"{name}._project_conv.weight"]))
        return out + x if out.shape == x.shape else out

    def _norm(self, name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            self.weights[f"{name}.{each}"]
            for each in ("running_mean", "running_var", "weight", "bias")
        )
        return batch_norm(x, mean, var, weight, bias, eps=EPSILON)


def _same(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """Return a convolution padded as TensorFlow does, more at the end, as the weights were trained."""
    edges = []
    for length in (x.shape[-1], x.shape[-2]):
        total = max((-(-length // stride) - 1) * stride + weight.shape[-1] - length, 0)
        edges += [total // 2, total - total // 2]
    return conv2d(pad(x, edges), weight, stride=stride, groups=groups)


def _unit(x: Tensor) -> Tensor:
    """Return each pixel's features at length 1; all are 0 where nothing is seen."""
    length = (x.square().sum(1, keepdim=True) + 1e-10).sqrt()
    return x / length
