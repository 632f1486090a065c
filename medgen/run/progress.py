"""Count steps, samples and epochs of a run: arithmetic without device, files or other ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from medgen.api.tables import TrainingSettings

FIELDS = ("step", "samples", "epochs_ended", "skipped")
"""Counters that a checkpoint keeps."""


@attrs.define
class Progress:
    """Count the progress of a run.

    batch_size: samples per step. epoch_samples: samples per epoch of logs, validation and
    checkpoints. total_steps: optimizer steps of the whole run. step, samples: done. epochs_ended:
    epochs whose validation, callbacks and checkpoint are done. skipped: consecutive non-finite
    steps up to the last one.
    """

    batch_size: int
    epoch_samples: int
    total_steps: int
    step: int = 0
    samples: int = 0
    epochs_ended: int = 0
    skipped: int = 0

    @classmethod
    def of(cls, training: TrainingSettings, slices: int) -> Progress:
        """Return the counters of a new run over `slices` samples."""
        cap = training.epoch_steps * training.batch_size
        progress = cls(training.batch_size, min(slices, cap) if cap else slices, training.steps)
        if not training.steps:
            progress.total_steps = progress.steps_of(training.epochs)
        return progress

    @property
    def epoch(self) -> int:
        """Return the epoch of the last sample seen, from 1."""
        return max(0, self.samples - 1) // self.epoch_samples + 1

    @property
    def epoch_due(self) -> bool:
        """Return True between an epoch's last sample, of a short one too, and the work at its end."""
        seen = self.samples / self.epoch_samples
        return (math.ceil(seen) if self.complete else math.floor(seen)) > self.epochs_ended

    @property
    def complete(self) -> bool:
        """Return True once every step is done."""
        return self.step >= self.total_steps

    def steps_of(self, epochs: int) -> int:
        """Return the number of steps in which `epochs` epochs are seen."""
        return math.ceil(epochs * self.epoch_samples / self.batch_size)

    def limit_epochs(self, epochs: int) -> None:
        """End the run after `epochs` epochs at the latest."""
        self.total_steps = min(self.total_steps, self.steps_of(epochs))

    def advance(self, samples: int) -> None:
        """Count a step of `samples` samples."""
        self.step, self.samples = self.step + 1, self.samples + samples

    def end_epoch(self) -> None:
        """Count an epoch, after the work at its end."""
        self.epochs_ended += 1

    def reopen_epoch(self) -> None:
        """Count a short last epoch as not ended, when a complete run is extended."""
        if not self.complete:
            self.recount_epochs(at_most=self.epochs_ended)

    def recount_epochs(self, at_most: int | None = None) -> None:
        """Count as ended the epochs whose samples have all been seen."""
        seen = self.samples // self.epoch_samples
        self.epochs_ended = seen if at_most is None else min(at_most, seen)

    def state_dict(self) -> dict[str, int]:
        """Return what a checkpoint keeps."""
        return {name: getattr(self, name) for name in FIELDS}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore what `state_dict` returned. Raises KeyError."""
        for name in FIELDS:
            setattr(self, name, state[name])
