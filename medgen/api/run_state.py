"""What callbacks see of a run."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medgen.api.interfaces import Space, Strategy, Turn
from medgen.api.values import Batch, Mode, SliceFacts

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn


class Slices(Protocol):
    """The slices of one split, or its volumes, in the order of their numbers."""

    @property
    def size(self) -> int:
        """Number of slices."""

    def read(self, numbers: np.ndarray) -> Batch:
        """Images and conditions of these slices, in [-1, 1], on the CPU."""

    def whole(self, numbers: np.ndarray) -> Batch:
        """The same, but whole samples also where crops of them are trained on, without a place."""

    def stored(self, numbers: np.ndarray) -> Batch:
        """`read`, with images as the space's `prepare` stores them."""

    @property
    def spacing(self) -> float:
        """Return mm per pixel."""

    def facts(self, numbers: np.ndarray) -> SliceFacts:
        """Return whose these slices are, where in the head they lie, and how large their lesions
        are.
        """

    def with_large_lesions(self, count: int) -> np.ndarray:
        """Numbers of `count` slices, spread over the half that has the larger lesions."""


class RunState(Protocol):
    """All of a `Run` but its recipe. `network` is the raw module, never a wrapper.

    averaged: a slot that a callback may fill with a module; checkpoints store it and `generate`
    prefers it.
    """

    averaged: nn.Module | None

    @property
    def dir(self) -> Path:
        """The run's folder."""

    @property
    def device(self) -> torch.device:
        """The device that this rank trains on."""

    @property
    def mode(self) -> Mode:
        """What is generated, given what."""

    @property
    def space(self) -> Space:
        """Where it is diffused."""

    @property
    def strategy(self) -> Strategy:
        """What the strategy's `build` gave."""

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""

    @property
    def turns(self) -> Mapping[str, Turn]:
        """The turns of a step by name, in order."""

    @property
    def train(self) -> Slices:
        """The slices to train on."""

    @property
    def val(self) -> Slices:
        """The held-out slices."""

    @property
    def masks(self) -> frozenset[str]:
        """Names of the channels that are masks."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""

    @property
    def epoch(self) -> int:
        """The epoch of the last sample seen, from 1."""

    @property
    def epochs_ended(self) -> int:
        """Epochs whose end has been worked off."""

    @property
    def epoch_due(self) -> bool:
        """True between the last sample of an epoch and the work at its end."""

    @property
    def complete(self) -> bool:
        """True once every step is done."""

    @property
    def is_rank_zero(self) -> bool:
        """True in the one process that writes files and shows progress."""

    def to_device(self, batch: Batch) -> Batch:
        """Move a batch to the device, prepared by the space."""

    def log(self, scalars: Mapping[str, float], images: Mapping[str, Any] | None = None) -> None:
        """Show numbers and pictures (uint8 `[height, width, 3]`); the numbers also go to
        `metrics.jsonl`.
        """

    def show_every(self, steps: int) -> None:
        """Request that measured numbers pass through `medgen_log` at least every `steps` steps."""

    def flush(self) -> None:
        """Read what has been measured since the last time from the device, and show it. Collective."""

    def save(self, name: str = "latest.pt") -> Path:
        """Write a checkpoint into the run's folder. Collective."""

    def stop(self, reason: str) -> None:
        """End the fit before the next step."""

    def trying(self, what: str, smaller: str = "") -> AbstractContextManager[None]:
        """Name what is tried before the first step, and a `KEY=VALUE` that needs less memory, for
        errors.
        """

    def stop_agreed(self) -> bool:
        """True if all ranks agree to stop now. Collective."""
