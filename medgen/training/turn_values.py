"""The tensors of a turn's NamedTuples: rows of them, and what the next turn may see."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from medgen.api.values import TurnOutput


def detach(step: TurnOutput) -> TurnOutput:
    """The result of a turn as the next turn may see it: without a graph."""

    def free(values: Any) -> Any:
        return type(values)(*(each.detach() for each in values))

    return TurnOutput(
        {name: each.detach() for name, each in step.losses.items()}, free(step.prediction), free(step.noisy)
    )


def cut(values: Any, rows: slice | Tensor) -> Any:
    """The rows of every tensor in a NamedTuple."""
    return type(values)(*(each[rows] if isinstance(each, Tensor) else each for each in values))
