"""Tell by arithmetic how many samples at a time would fit into GPUs of usual sizes, on any device.

A step is traced with tensors that have a shape and no values, so that it takes seconds and no
memory. Held are weights, gradients and two averages of AdamW (Muon has one) in fp32, averaged
weights, and what autograd keeps of the turn that keeps most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from medgen import seeds
from medgen.api.interfaces import Turn
from medgen.api.values import Batch, TurnOutput
from medgen.run.run import TrainingRun
from medgen.system.torch_private import needs_values, shapes_alone
from medgen.training.sampling import autocast
from medgen.training.turn_values import detach

SIZES = (10, 24, 80)
"""GB of memory of usual GPUs."""
SHARE = 0.8
"""Of the memory: the rest is the driver's, workspace of convolutions, and gaps of the allocator."""
TRAINED, KEPT = 16, 4
"""Bytes of a weight that is trained, and of one that is only kept."""


def lines(run: TrainingRun) -> Iterator[str]:
    """Yield what fits, in bf16 unless the run is on a GPU and in another precision."""
    precision = run.recipe.training.precision if run.device.type == "cuda" else "bf16"
    try:
        each = saved_by_sample(run, precision)
    except needs_values():
        yield "gpu      cannot be told, as a part of this recipe looks at values"
        return
    counts = [fitting(size * 1e9, held(run), each) for size in SIZES]
    pairs = zip(SIZES, counts, strict=True)
    told = ", ".join(f"{size} GB: {count or 'none'}" for size, count in pairs)
    yield f"gpu      samples at a time in {precision}, by arithmetic, in {told}"


def fitting(memory: float, held: float, each: float) -> int:
    """Return how many samples of `each` bytes fit beside what is held into a GPU's memory."""
    return max(0, int((SHARE * memory - held) / each))


def held(run: TrainingRun) -> float:
    """Return bytes that a step takes whatever the number of samples."""
    trained = {p for turn in run.turns.values() for p in cast(nn.Module, turn).parameters()}
    bytes_ = TRAINED * sum(each.numel() for each in trained)
    averaged = run.averaged.parameters() if run.averaged is not None else ()
    return float(bytes_ + KEPT * sum(each.numel() for each in averaged))


def saved_by_sample(run: TrainingRun, precision: str) -> float:
    """Return bytes that autograd keeps for the backward pass of a sample, of the turn that keeps
    most.
    """
    batch, before = run.to_device(run.train.stored(np.arange(1))), cast("TurnOutput | None", None)
    most = 0.0
    with torch.random.fork_rng(devices=[]):
        drawn = {name: _draws(run, turn, batch) for name, turn in run.turns.items()}
    with shapes_alone() as shape_of:
        batch = batch.map(shape_of)
        for name, turn in run.turns.items():
            draws = type(drawn[name])(*(_shapes(each, shape_of) for each in drawn[name]))
            kept = Kept(turn)
            with saved_tensors_hooks(kept.pack, _unpack), autocast(run.device, precision):
                before = detach(turn(batch, draws, before))
            most = max(most, kept.bytes)
    return most


class Kept:
    """Adds up what autograd keeps: each storage once, no weights."""

    def __init__(self, turn: Turn):
        self.bytes = 0.0
        weights = cast(nn.Module, turn).parameters()
        self._known = {each.untyped_storage()._cdata for each in weights}
        self._alive: list[Tensor] = []

    def pack(self, x: Tensor) -> Tensor:
        """Count a tensor that is kept for the backward pass."""
        storage = x.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._alive.append(x)  # else another one might get its address
            self.bytes += storage.nbytes()
        return x


def _unpack(x: Tensor) -> Tensor:
    return x


def _draws(run: TrainingRun, turn: Turn, batch: Batch) -> Any:
    return turn.draw(seeds.stream(run.recipe.run.seed, "gpu", device=run.device), batch)


def _shapes(value: Any, shape_of: Any) -> Any:
    return shape_of(value) if isinstance(value, Tensor) else value
