"""Tensors in nested dicts and lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch


def key_paths(value: object, prefix: str = "") -> Iterator[str]:
    """Yield the path of every key in nested dicts and lists: `optimizers/network/state/0/exp_avg`."""
    items = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield f"{prefix}{key}"
        yield from key_paths(inner, f"{prefix}{key}/")


def tensors(value: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor in nested dicts and lists, with its path."""
    if isinstance(value, torch.Tensor):
        yield prefix.rstrip("/"), value
    items = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from tensors(inner, f"{prefix}{key}/")


def size(state: Mapping[str, Any]) -> int:
    """Return bytes of all tensors."""
    return sum(value.nbytes for _, value in tensors(state))
