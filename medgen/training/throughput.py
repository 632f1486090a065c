"""How fast a run trains: images and FLOPs per second, against what the device can do, and what
keeps it waiting.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.utils import flop_counter

from medgen import seeds
from medgen.api.interfaces import Turn
from medgen.api.values import Batch, TurnOutput
from medgen.ranks import collectives, heartbeat
from medgen.run.run import TrainingRun
from medgen.system.torch_private import count_graphs
from medgen.training.sampling import autocast, evaluation
from medgen.training.turn_values import detach

SIDES = {"cuda": 8192}
SIDE = 1024
"""Rows of the matrices whose product tells a device's peak: large enough to fill it, small enough
for its memory.
"""
PEAK_SECONDS, PEAK_PRODUCTS = 0.1, 50
EXPECTED = 2
"""So many graphs compiled after the first step are no reason to warn: one for a shape met late, in
each turn.
"""


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return int(flop_counter.sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    return int(flop_counter.sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]


ON_CPU: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""What torch's counter leaves out."""


class Throughput:
    """What this process has done since `restart`."""

    def __init__(self, run: TrainingRun):
        self.run, self.recompiles = run, Recompiles() if run.recipe.training.compile else None
        self._flops = self._peak = 0.0
        self.restart()

    def calibrate(self) -> None:
        """Count the FLOPs of an image and measure the device's peak. Changes nothing of the run."""
        with heartbeat.busy():
            self._flops = flops_per_image(self.run)
            self._peak = (
                peak(self.run.device, self.run.recipe.training.precision) * collectives.size()
            )
            if self.run.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(
                    self.run.device
                )  # this is no part of what training takes
        self.restart()

    def restart(self) -> None:
        """Measure from now on."""
        self._samples, self._clock, self._waited = self.run.samples, time.monotonic(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the wait for a batch and for its way to the device."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    def step_done(self) -> None:
        """Note the end of a step."""
        if self.recompiles:
            self.recompiles.step_done()

    def notice(self) -> str | None:
        """Return a sentence to warn with, if there is reason to."""
        return self.recompiles.notice() if self.recompiles else None

    def read(self) -> dict[str, float]:
        """`images_per_second`, over all ranks; `data_wait`, the share of time spent on batches.

        Once calibrated, `flops` per second and `mfu`, of all devices; compiled, `recompiles`.
        """
        seconds = max(time.monotonic() - self._clock, 1e-9)
        speed = (self.run.samples - self._samples) / seconds
        values = {"images_per_second": speed, "data_wait": min(self._waited / seconds, 1.0)}
        if self._peak:
            values |= {"flops": speed * self._flops, "mfu": speed * self._flops / self._peak}
        return (
            values
            if self.recompiles is None
            else values | {"recompiles": float(self.recompiles.count)}
        )


def flops_per_image(run: TrainingRun) -> float:
    """Return FLOPs of the products and convolutions that an image takes on its way through all
    turns, forward and backward.

    What gradient checkpointing computes again is not counted. One image is sent through in
    evaluation mode, so that no weight, gradient, buffer or generator changes.
    """
    cuda = [run.device] if run.device.type == "cuda" else []
    batch, before = run.to_device(run.train.stored(np.arange(1))), cast("TurnOutput | None", None)
    counter = flop_counter.FlopCounterMode(display=False, custom_mapping=ON_CPU)
    with torch.random.fork_rng(devices=cuda), counter:
        for turn in run.turns.values():
            with evaluation(cast(nn.Module, turn)):
                before = _pass(run, turn, batch, before)
    return float(counter.get_total_flops())


def _pass(run: TrainingRun, turn: Turn, batch: Batch, before: TurnOutput | None) -> TurnOutput:
    """Return a turn's result without a graph, after a backward pass whose gradients are dropped."""
    draws = turn.draw(seeds.stream(run.recipe.run.seed, "flops", device=run.device), batch)
    with autocast(run.device, run.recipe.training.precision):
        result = turn(batch, draws, before)
    total = torch.stack([each.sum() for each in result.losses.values()]).sum()
    trained = [each for each in turn.parameters() if each.requires_grad]
    torch.autograd.grad(total, trained, allow_unused=True)
    return detach(result)


@functools.cache
def peak(device: torch.device, precision: str) -> float:
    """Measure the FLOP/s of a product of square matrices, the best of several.

    May exceed 1 where `precision` is fp32: convolutions may use TF32, products do not.
    """
    side = SIDES.get(device.type, SIDE)
    generator = torch.Generator(device).manual_seed(0)  # random, as a GPU multiplies ones faster
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, two = (
        torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2)
    )
    times: list[float] = []
    torch.mm(one, two)  # the first one sets up the library
    finish(device)
    until = time.perf_counter() + PEAK_SECONDS
    while not times or (len(times) < PEAK_PRODUCTS and time.perf_counter() < until):
        began = time.perf_counter()
        torch.mm(one, two)
        finish(device)
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)


def finish(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Recompiles:
    """Graphs that torch.compile made after the first step, which should have made all."""

    def __init__(self) -> None:
        self._before: int | None = None
        self._told = EXPECTED

    def step_done(self) -> None:
        """Take the count of graphs to begin from, at the first call."""
        if self._before is None:
            self._before = count_graphs()

    @property
    def count(self) -> int:
        """Return how many so far."""
        return 0 if self._before is None else count_graphs() - self._before

    def notice(self) -> str | None:
        """Return a sentence to warn with, each time the count has doubled since the last."""
        if self.count <= self._told:
            return None
        self._told = 2 * self.count
        return (
            f"training.compile: the step was compiled {self.count} times more after the first step, which takes time "
            "whenever it happens. Find out why with TORCH_LOGS=recompiles, or use training.compile=false."
        )
