"""Copy weights into and out of modules, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from medgen.api.interfaces import Turn
from medgen.errors import CheckpointError, Problem


def load_into(module: nn.Module, weights: Mapping[str, Any] | None, source: Path) -> None:
    """Copy weights into a module. Raises CheckpointError for a missing, extra or misshapen tensor."""
    copy_into(module.state_dict(), weights, source)


def own_state(turn: Turn, network: nn.Module) -> dict[str, Tensor]:
    """Return a turn's tensors besides the network's, by name, such as a discriminator's weights."""
    known = {id(each) for each in network.state_dict(keep_vars=True).values()}
    state = cast("nn.Module", turn).state_dict(keep_vars=True)
    return {name: each.detach() for name, each in state.items() if id(each) not in known}


def copy_into(
    wanted: Mapping[str, Tensor], weights: Mapping[str, Any] | None, source: Path
) -> None:
    """Copy weights into tensors of the same names and shapes.

    Raises CheckpointError, as `load_into`.
    """
    given = weights if isinstance(weights, Mapping) else {}
    wrong = [name for name in wanted if _shape(given.get(name)) != wanted[name].shape]
    extra = [name for name in given if name not in wanted]
    if wrong or extra:
        first = _misfit([*wrong, *extra][0], given, wanted)
        raise CheckpointError(
            Problem(
                source,
                f"weights do not fit the recipe: {len(wrong)} of {len(wanted)} tensors would stay as they are, "
                f"{len(extra)} are left over ({first})",
                "Use the recipe that trained them",
            )
        )
    with torch.no_grad():
        for name, each in wanted.items():
            each.copy_(given[name])


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def _misfit(name: str, given: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    shapes = [
        str(tuple(_shape(each[name]) or ())) if name in each else "none" for each in (given, wanted)
    ]
    return f"{name}: has {shapes[0]}, expected {shapes[1]}"
