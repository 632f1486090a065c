"""Weights for a network that is given more than the one they are of: further masks, images or numbers,
which it ignores at first.
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
    theirs = from_toml(given.recipe).mode.build()
    if not _begins_with(mode, theirs):
        return given.weights
    layer = network[name].new_zeros(network[name].shape)
    more_given = len(mode.condition) > len(theirs.condition)
    numbers = len(theirs.scalars) if more_given else 0  # which then are not beside the others
    first, old = given.weights[name].shape[1] - numbers, given.weights[name]
    layer[:, :first] = old[:, :first]
    start = layer.shape[1] - len(mode.scalars)
    layer[:, start : start + numbers] = old[:, first:]
    return {**given.weights, name: layer}


def _is_wider(mine: Tensor, theirs: Tensor | None) -> bool:
    """Return True if a weight, `[output, input, ...]`, has more inputs and is the same otherwise."""
    if theirs is None or mine.ndim < 2 or mine.ndim != theirs.ndim:
        return False
    (out, inputs, *size), (other, fewer, *same) = mine.shape, theirs.shape
    return (out, size) == (other, same) and inputs > fewer


def _begins_with(mode: Mode, theirs: Mode) -> bool:
    """Return True if their images, what they are given and their numbers are the first of a mode's."""
    if mode.channels != theirs.channels or len(mode.condition) < len(theirs.condition):
        return False
    more_given = len(mode.condition) > len(theirs.condition)
    if more_given and (mode.has_place or theirs.has_place):
        return False
    return mode.numbers[: len(theirs.numbers)] == theirs.numbers
