"""Checkpoints that differ from trained ones in what a header says, and masks that a test draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medgen.generation import pair_writer
from medgen.run import checkpoint


def altered(
    source: Path, target: Path, spacing: float | None = None, recipe: tuple[str, str] = ("", "")
) -> Path:
    """Write the newest checkpoint of a run with other mm per pixel, or with a text of its recipe replaced."""
    state: dict[str, Any] = dict(checkpoint.load(source / "latest.pt"))
    if spacing is not None:
        state["data"] = {**state["data"], "spacing": spacing}
    assert recipe[0] in state["recipe"]
    state["recipe"] = state["recipe"].replace(*recipe)
    target.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(
        {key: value for key, value in state.items() if key not in ("format", "keys")}, target
    )
    return target


def draw(monkeypatch: pytest.MonkeyPatch, *masks: torch.Tensor) -> None:
    """Let mask models draw these, bool `[size, size]`: the first at attempt 1, and so on, the last for ever."""

    def attempt(self: pair_writer.ModelMasks, indices: range, attempt: int) -> torch.Tensor:
        mask = masks[min(attempt, len(masks)) - 1]
        return torch.where(mask, 1.0, -1.0).expand(len(indices), 1, *mask.shape).clone()

    monkeypatch.setattr(pair_writer.ModelMasks, "_attempt", attempt)
