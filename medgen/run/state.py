"""Hold what trains in a run: models, optimizers, data and callbacks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from medgen.api.interfaces import Callback, Space, Strategy, Turn
from medgen.api.recipe import Recipe
from medgen.api.values import Batch, Mode
from medgen.data.store.loader import Loader
from medgen.data.store.patches import Patches
from medgen.run import optim
from medgen.run.metrics_file import MetricsFile
from medgen.run.progress import Progress

if TYPE_CHECKING:
    from medgen.data.store.latent_store import LatentStore
    from medgen.data.store.slice_store import SliceStore


class RunState:
    """Hold models, data and counters. `network` is the raw module, never a wrapper.

    averaged: module that a callback may set; checkpoints store `averaged` and `generate` prefers
    it to `network`.
    """

    averaged: nn.Module | None = None

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: torch.device,
        store: SliceStore,
        mode: Mode,
        space: Space,
        strategy: Strategy,
        network: nn.Module,
        turns: Mapping[str, Turn],
        metrics_file: MetricsFile,
        latents: LatentStore | None = None,
    ):
        self.recipe, self.dir, self.device, self.store = recipe, folder, device, store
        self.mode, self.space, self.strategy, self.network, self.turns = (
            mode,
            space,
            strategy,
            network,
            dict(turns),
        )
        self.metrics_file = metrics_file
        patches = Patches.of(store, recipe.data, recipe.run.seed)
        self.train = Loader(
            store, mode, "train", recipe.run.seed, latents, recipe.data.augment, patches
        )
        self.val = Loader(store, mode, "val", prepared=latents, patches=patches)
        self.channels_last = optim.channels_last(recipe.training, network)
        self.optimizers = {
            name: optim.optimizer(turn, recipe.training) for name, turn in turns.items()
        }
        self.callbacks: dict[str, Callback] = {}
        self.progress = Progress.of(recipe.training, self.train.size)
        self._began, self._seconds_before = time.monotonic(), 0.0

    @property
    def masks(self) -> frozenset[str]:
        """Return the names of the channels that are masks."""
        return self.store.masks

    @property
    def seconds(self) -> float:
        """Return the training time in seconds, summed over all processes of this run."""
        return self._seconds_before + time.monotonic() - self._began

    def continue_clock(self, seconds: float) -> None:
        """Add the training time of earlier processes."""
        self._seconds_before = seconds

    @property
    def step(self) -> int:
        """Return the number of optimizer steps done."""
        return self.progress.step

    @property
    def samples(self) -> int:
        """Return the number of samples seen."""
        return self.progress.samples

    @property
    def total_steps(self) -> int:
        """Return the number of optimizer steps of the whole run."""
        return self.progress.total_steps

    @property
    def epoch(self) -> int:
        """Return the epoch of the last sample seen, from 1."""
        return self.progress.epoch

    @property
    def epochs_ended(self) -> int:
        """Return the number of epochs whose end is done."""
        return self.progress.epochs_ended

    @property
    def epoch_due(self) -> bool:
        """Return True between an epoch's last sample and the work at its end."""
        return self.progress.epoch_due

    @property
    def complete(self) -> bool:
        """Return True once every step is done."""
        return self.progress.complete

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, from 0."""
        return optim.learning_rate(self.recipe.training, step, self.total_steps)

    def to_device(self, batch: Batch) -> Batch:
        """Move a batch of a loader's `at` or `stored` to the device, prepared by the space."""
        moved = batch.map(lambda part: part.to(self.device, non_blocking=True).float())
        if self.train.prepared:
            return moved
        return moved._replace(image=self.space.prepare(moved.image))
