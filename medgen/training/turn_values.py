"""The tensors of a turn's NamedTuples: rows of them, and what the next turn may see."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from torch import Tensor

from medgen.api.values import TurnOutput

Values = TypeVar("Values", bound=NamedTuple)


def detach(step: TurnOutput) -> TurnOutput:
    """Return the result of a turn as the next turn may see it: without a graph."""
    losses = {name: each.detach() for name, each in step.losses.items()}
    return TurnOutput(losses, _detached(step.prediction), _detached(step.noisy))


def _detached(values: Values) -> Values:
    return values._make(each.detach() if isinstance(each, Tensor) else each for each in values)


def cut(values: Values, rows: slice | Tensor) -> Values:
    """Return the rows of every tensor in a NamedTuple."""
    if not values:  # of a turn that draws nothing, which may say so by ()
        return values
    return values._make(each[rows] if isinstance(each, Tensor) else each for each in values)
