"""Weights for a network that is given more than the one they are of: further masks or numbers, which it
ignores at first.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from medgen.api.values import Mode
from medgen.config.recipe import from_toml
from medgen.run.shared_weights import SharedWeights


def widened(given: SharedWeights, network: Mapping[str, Tensor], mode: Mode) -> dict[str, Tensor]:
    """Return weights whose layer of inputs has zeros for those that `mode` has besides theirs.

    Unchanged where theirs are not the first of the mode's inputs, or another layer differs too.
    """
    if not given.recipe:
        return given.weights
    other = [
        name
        for name, mine in network.items()
        if name not in given.weights or mine.shape != given.weights[name].shape
    ]
    if len(other) != 1:
        return given.weights
    (name,) = other
    if not _is_wider(network[name], given.weights.get(name)):
        return given.weights
    if not _begins_with(mode, from_toml(given.recipe).mode.build()):
        return given.weights
    layer = network[name].new_zeros(network[name].shape)
    layer[:, : given.weights[name].shape[1]] = given.weights[name]
    return {**given.weights, name: layer}


def _is_wider(mine: Tensor, theirs: Tensor | None) -> bool:
    """Return True if a weight, `[output, input, ...]`, has more inputs and is the same otherwise."""
    if theirs is None or mine.ndim < 2 or mine.ndim != theirs.ndim:
        return False
    (out, inputs, *size), (other, fewer, *same) = mine.shape, theirs.shape
    return (out, size) == (other, same) and inputs > fewer


def _begins_with(mode: Mode, theirs: Mode) -> bool:
    """Return True if their inputs, images, masks and numbers in this order, are the first of a mode's."""
    if mode.channels != theirs.channels or len(mode.condition) < len(theirs.condition):
        return False
    more_masks = len(mode.condition) > len(theirs.condition)
    if more_masks:
        return not theirs.numbers
    return mode.numbers[: len(theirs.numbers)] == theirs.numbers
